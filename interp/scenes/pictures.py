"""The bundled pictures: drawn once into the cache folder, with a record by which damage is noticed."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from interp.errors import FetchError
from interp.kept_folder import intact, kept_folder
from interp.packages import Notify, Package, cache_home, fetch
from interp.prompts.pairs import Pair
from interp.scenes.catalogue import SCENES, Concept, concepts
from interp.scenes.styles import STYLES, Style, drawings

PIXELS = 224
BACKGROUND = "#ffffff"
"""Every picture is on white: the drawings are made for it, and a colour that varies would be one more thing a probe
could read. Training varies it where it augments."""
PAIRS = "pairs.json"
UNKNOWN = "unknown"
"""The split of concepts that are held out, whatever the style."""
SPLITS = (*dict.fromkeys(style.split for style in STYLES), UNKNOWN)


def bundled_pairs(
    split: str | None = None, *, offline: bool = False, notify: Notify = lambda _: None
) -> tuple[Pair, ...]:
    """The bundled pictures with their captions, drawn when they are not in the cache folder yet.

    Splits go by concept and by style: ``train`` and ``validation`` are known concepts in the styles for training and
    for choosing, ``test`` known concepts in a style that nothing is trained on, ``fresh`` in one that nothing was
    chosen by either, ``unknown`` the concepts held out of all training, in every style.

    Args:
        split: one of these, or None for all pairs.
        offline: raise instead of fetching.
        notify: told in one line what is happening.

    Raises:
        FetchError: the packages can not be fetched, or are not the pinned ones.
    """
    folder = pictures_folder(offline=offline, notify=notify)
    records = json.loads((folder / PAIRS).read_text("utf-8"))
    pairs = [Pair(**{**record, "image": str(folder / record["image"])}) for record in records]
    return tuple(pair for pair in pairs if split in (None, pair.split))


def pictures_folder(*, offline: bool = False, notify: Notify = lambda _: None) -> Path:
    """The folder of the pictures, drawn when it is missing or damaged.

    Raises:
        FetchError: as for `bundled_pairs`.
    """
    folder, source = cache_home() / "scenes" / "pictures", _source()
    if offline and not intact(folder, source):
        raise FetchError(
            f"the pictures are not in {folder.parent} and --offline was given; run `interp scenes fetch` first."
        )

    def make(made: Path, meanwhile: Path) -> None:
        tarballs: dict[Package, Path] = {}
        for style in STYLES:
            if style.package not in tarballs:
                tarballs[style.package] = fetch(style.package, meanwhile, notify)
        notify("Drawing the pictures, once.")
        pairs = [pair for style in STYLES for pair in draw_style(style, tarballs[style.package], made)]
        pairs = with_twins(pairs)
        (made / PAIRS).write_text(json.dumps([asdict(p) for p in pairs], indent=1), "utf-8")

    return kept_folder(folder, source, make, notify)


def draw_style(style: Style, tarball: Path, folder: Path, chosen: Sequence[Concept] | None = None) -> list[Pair]:
    """Draws a style's pictures into ``folder/<style>``; the pairs name them relative to the folder.

    Args:
        style: the style.
        tarball: its package.
        folder: gets one PNG of `PIXELS` x `PIXELS` on `BACKGROUND` per drawing.
        chosen: the concepts, all of them when None.

    Returns:
        Pairs whose ``twin_of`` is still the code of a concept.
    """
    place = folder / style.name
    place.mkdir()
    pairs = []
    for concept, tone, svg in drawings(style, tarball, tuple(chosen or concepts())):
        name = "-".join(filter(None, (concept.slug, tone)))
        (place / f"{name}.png").write_bytes(png(svg))
        pairs.append(
            Pair(
                id=f"{name}/{style.name}",
                image=f"{style.name}/{name}.png",
                caption=concept.caption,
                scene=concept.scene,
                twin_of=concept.twin_of,
                concept=concept.caption,
                style=style.name,
                split=style.split if concept.known else UNKNOWN,
            )
        )
    return pairs


def png(svg: str, *, pixels: int = PIXELS, background: str = BACKGROUND) -> bytes:
    """Renders an SVG into a square RGB PNG; the same bytes for the same SVG, since no font of the system is used."""
    import resvg_py
    from PIL import Image

    drawn = resvg_py.svg_to_bytes(
        svg_string=svg, width=pixels, height=pixels, background=background, skip_system_fonts=True
    )
    # The renderer's files have an alpha channel, which not every image processor drops.
    written = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").save(written, "PNG")
    return written.getvalue()


def with_twins(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with ``twin_of`` an id.

    It is the instance that the catalogue names, in the twin's own split, style and skin tone as far as there is one:
    the style that draws a water pistol draws no pistol, so its twin is another style's.
    """
    codes = {c.caption: c.code for c in concepts() if c.twin_of is None}
    instances = [p for p in pairs if p.label == "harmful"]

    def nearest(twin: Pair) -> str:
        def differs(other: Pair) -> tuple[bool, ...]:
            named = codes[other.concept or ""] == twin.twin_of
            return other.split != twin.split, not named, other.style != twin.style, _tone(other) != _tone(twin)

        return min((p for p in instances if p.scene == twin.scene), key=differs).id

    return [p if p.twin_of is None else replace(p, twin_of=nearest(p)) for p in pairs]


def _tone(pair: Pair) -> str:
    """What the file name says beyond the caption."""
    return Path(pair.image).stem.removeprefix(pair.caption.lower().replace(" ", "-"))


def _source() -> str:
    """Digest of all that decides what the pictures are."""
    what = {
        "concepts": [{**asdict(c), "not_in": sorted(c.not_in)} for c in concepts()],
        "styles": [[s.name, s.package.sha256, s.folder, s.split] for s in STYLES],
        "scenes": SCENES,
        "pixels": PIXELS,
        "background": BACKGROUND,
        "drawn by": [version("resvg-py"), version("pillow")],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
