"""Pictures with what they show: the pair record, and the reader of a user's file of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shown

from interp.errors import Problem, PromptFileError
from interp.prompts import fields
from interp.prompts.files import read_table
from interp.prompts.prompt import Label
from interp.prompts.records import Problems, Record, Table

REQUIRED = ("image", "caption")
OPTIONAL = ("id", "scene", "twin_of", "concept", "style", "split")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture and the caption that says what it shows.

    Attributes:
        id: unique among its pairs.
        image: path of the picture.
        caption: what it shows, in words.
        scene: the harmful scene it belongs to, as an instance or as a twin; None for an ordinary picture.
        twin_of: id of the pair of which this is the harmless twin; None for any other.
        concept: what is drawn; pictures of one concept are never split or resampled apart; None when unknown.
        style: who drew it, or how; None when unknown.
        split: train, validation, test or another name; None when unknown.
    """

    id: str
    image: str
    caption: str
    scene: str | None = None
    twin_of: str | None = None
    concept: str | None = None
    style: str | None = None
    split: str | None = None

    @property
    def label(self) -> Label:
        """Harmful for an instance of a scene; harmless for twins and ordinary pictures."""
        return "harmful" if self.scene is not None and self.twin_of is None else "harmless"

    @property
    def unit(self) -> str:
        """The resampling unit: the concept, or the caption where no concept is known."""
        return self.concept or self.caption


def read_pairs(path: Path | str) -> tuple[Pair, ...]:
    """Reads a CSV, TSV, JSONL or JSON file with the columns ``image,caption,scene,twin_of``.

    Args:
        path: the file. ``image`` is a path below its folder (PNG, JPEG or WebP). ``twin_of`` names the ``id``, or the
            ``image``, of the row of which this one is the harmless twin; a twin's ``scene`` may be left empty, and is
            then that of the other row. ``id``, ``concept``, ``style`` and ``split`` may be there too; ids are made
            where there are none.

    Returns:
        The pairs in the order of the file; images are absolute paths, and ``twin_of`` is an id.

    Raises:
        PromptFileError: with every bad line: an image that is not there or no picture by its name, an empty caption,
            an id twice, a twin of nothing, of itself, of another twin, of a picture without a scene or of another
            scene.
    """
    path = Path(path)
    table, problems = read_table(path)
    lacking = [column for column in REQUIRED if column not in table.columns]
    if lacking and (table.columns or any(True for _ in table.records)):
        problems.stop(f"has no column {' or '.join(lacking)}; found {', '.join(table.columns)}")
    pairs, lines = _pairs(table, path, problems)
    problems.check()
    if not pairs:
        problems.stop("has no pairs, only a header or an empty list")
    return _with_twins(path, pairs, lines)


def _pairs(table: Table, path: Path, problems: Problems) -> tuple[list[Pair], list[int]]:
    pairs: list[Pair] = []
    lines: list[int] = []
    owners: dict[str, int] = {}
    for number, record in enumerate(table.records, 1):
        try:
            pair = _pair(record, f"{path.stem}-{number:05}", path.parent)
            owner = owners.setdefault(pair.id, record.line)
            if owner != record.line:
                raise fields.FieldError(f"id {pair.id!r} is already that of line {owner}; ids must be unique")
        except fields.FieldError as error:
            problems.add(record.line, str(error), record.place)
        else:
            pairs.append(pair)
            lines.append(record.line)
    return pairs, lines


def _pair(record: Record, made: str, folder: Path) -> Pair:
    known = {name: record.values[name] for name in (*REQUIRED, *OPTIONAL) if record.values.get(name) not in ("", None)}
    for name in REQUIRED:
        if name not in known:
            raise fields.FieldError(f"{name} is missing or empty")
    image = fields.image(known["image"])
    if Path(image).suffix.lower() not in PICTURES:
        raise fields.FieldError(f"image {shown(image)} must end in {', '.join(PICTURES)}")
    if not (folder / image).is_file():
        raise fields.FieldError(f"image {shown(image)} is not there, looked for below {folder}")
    rest = {name: fields.name(name, known[name]) for name in OPTIONAL[1:] if name in known}
    return Pair(
        id=fields.prompt_id(known.get("id", made)),
        image=str((folder / image).resolve()),
        caption=fields.instruction("caption", known["caption"]),
        **rest,
    )


def _with_twins(path: Path, pairs: Sequence[Pair], lines: Sequence[int]) -> tuple[Pair, ...]:
    """The pairs with each twin's id and scene filled in."""
    found: list[Pair] = []
    problems: list[Problem] = []
    owners = {p.image: p for p in reversed(pairs)} | {p.id: p for p in pairs}
    for pair, line in zip(pairs, lines, strict=True):
        if pair.twin_of is None:
            found.append(pair)
            continue
        other = owners.get(pair.twin_of) or owners.get(str((path.parent / pair.twin_of).resolve()))
        reason = _why_no_twin(pair, other)
        if reason or other is None:
            problems.append(Problem(line, f"twin_of {shown(pair.twin_of)} {reason}"))
        else:
            found.append(replace(pair, twin_of=other.id, scene=other.scene))
    if problems:
        raise PromptFileError(path, problems)
    return tuple(found)


def _why_no_twin(pair: Pair, other: Pair | None) -> str:
    if other is None:
        return "is neither an id nor an image of this file"
    if other is pair:
        return "is this line itself"
    if other.twin_of is not None:
        return "is a twin itself; name the picture that both are twins of"
    if other.scene is None:
        return "has no scene, so nothing in it is harmful"
    if pair.scene not in (None, other.scene):
        return f"is of the scene {other.scene!r}, this one of {pair.scene!r}"
    return ""
