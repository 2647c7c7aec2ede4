"""The drawing styles of the bundled pictures: which package holds each, and how it names its drawings."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from interp.packages import Package, read_tarball
from interp.scenes.catalogue import TONES, Concept

Drawing = tuple[Concept, str, str]
"""A concept, the skin tone ("" where there is none) and the SVG."""


@dataclass(frozen=True, slots=True)
class Style:
    """One way of drawing.

    Attributes:
        name: as pairs call it.
        package: the package that holds the drawings.
        folder: of the SVG files in it; "" for a collection in one icons.json.
        split: of the known concepts in this style.
    """

    name: str
    package: Package
    folder: str
    split: str


def _npm(name: str, version: str, sha256: str, megabytes: float, licence: str) -> Package:
    return Package("npm", name, version, sha256, megabytes, licence)


_NOTO = _npm(
    "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", 3.1, "Apache-2.0"
)
_NOTO_V1 = _npm(
    "@iconify-json/noto-v1",
    "1.2.5",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    1.6,
    "Apache-2.0",
)
_FXEMOJI = _npm(
    "@iconify-json/fxemoji",
    "1.2.2",
    "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    1.0,
    "Apache-2.0",
)
_EMOJIONE = _npm(
    "@iconify-json/emojione",
    "1.2.3",
    "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    0.7,
    "CC-BY-4.0",
)
_EMOJIONE_V1 = _npm(
    "@iconify-json/emojione-v1",
    "1.2.3",
    "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
    3.7,
    "CC-BY-SA-4.0",
)
_FLUENT = _npm(
    "fluentui-emoji", "1.3.0", "ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5", 23.8, "MIT"
)
_TWEMOJI = _npm(
    "@iconify-json/twemoji",
    "1.2.5",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    1.6,
    "CC-BY-4.0",
)
_OPENMOJI = _npm(
    "openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68", 4.3, "CC-BY-SA-4.0"
)
_STREAMLINE = _npm(
    "@iconify-json/streamline-emojis",
    "1.2.4",
    "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    0.4,
    "CC-BY-4.0",
)

STYLES = (
    Style("noto", _NOTO, "", "train"),
    Style("noto-v1", _NOTO_V1, "", "train"),
    Style("fxemoji", _FXEMOJI, "", "train"),
    Style("emojione", _EMOJIONE, "", "train"),
    Style("emojione-v1", _EMOJIONE_V1, "", "train"),
    Style("fluent-flat", _FLUENT, "package/icons/flat", "train"),
    Style("fluent-modern", _FLUENT, "package/icons/modern", "train"),
    Style("fluent-high-contrast", _FLUENT, "package/icons/high-contrast", "train"),
    Style("twemoji", _TWEMOJI, "", "validation"),
    Style("openmoji", _OPENMOJI, "package/color/svg", "test"),
    Style("streamline", _STREAMLINE, "", "fresh"),
)
"""The styles of one package share their drawings' outlines, so they are never parted between splits. No hand drew for
both openmoji or streamline and another style. Nothing is trained on either, but openmoji's pictures were looked at when
the drawing of lines and the recipes of text-guided alignment were chosen; streamline's were added after that."""


def drawings(style: Style, tarball: Any, concepts: tuple[Concept, ...]) -> Iterator[Drawing]:
    """Yields the drawings that a style has of these concepts, with those in other skin tones.

    Args:
        style: the style.
        tarball: path of its package.
        concepts: what is wanted; those a style lacks are left out.
    """
    wanted = {
        name: (concept, tone)
        for concept in concepts
        if style.name not in concept.not_in
        for tone in ("", *(TONES if concept.tones else ()))
        for name in [_drawing_name(style, concept, tone)]
        if name
    }
    if not style.folder:
        icons = json.loads(next(read_tarball(tarball, "package/icons.json".__eq__))[1])
        found = {name: _icon_svg(icons, name) for name in wanted}
    else:
        places = {f"{style.folder}/{name}.svg": name for name in wanted}
        read = read_tarball(tarball, _among(places))
        found = {places[path]: content.decode("utf-8") for path, content in read}
    for name, (concept, tone) in wanted.items():
        svg = found.get(name)
        if svg is not None:
            yield concept, tone, svg


def _among(names: dict[str, str]) -> Callable[[str], bool]:
    return names.__contains__


def _drawing_name(style: Style, concept: Concept, tone: str) -> str:
    """What the package calls the drawing; "" when it has none."""
    if style.name == "openmoji":
        return concept.code + (f"-{TONES[tone]}" if tone else "")
    if style.name.startswith("fluent"):
        return concept.fluent.replace("-default", f"-{tone}") if tone else concept.fluent
    if style.name == "fxemoji":
        return "" if tone else concept.fxemoji
    if style.name == "streamline":
        return {"": concept.streamline, "light": concept.streamline.replace("-1", "-2")}.get(tone, "")
    return concept.icon + (f"-{tone}-skin-tone" if tone else "")


def _icon_svg(collection: dict[str, Any], name: str) -> str | None:
    """The SVG of an icon of an Iconify collection, through its aliases."""
    aliases: dict[str, Any] = collection.get("aliases", {})
    while name not in collection["icons"]:
        if name not in aliases:
            return None
        name = aliases[name]["parent"]
    icon = collection["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", collection["width"]), icon.get("height", collection["height"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
