"""Records of any source turned into prompts: which column holds which field, and what is wrong where."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import NoReturn

from interp.errors import Problem, PromptFileError, UsageError
from interp.prompts import fields
from interp.prompts.prompt import Label, Message, Prompt, PromptSet

# The names public prompt sets use; of several, the first.
NAMES = {
    "id": ("id", "behaviorid"),
    "label": ("label",),
    "category": ("category", "semanticcategory", "type"),
    "group": ("group",),
    "split": ("split",),
    "image": ("image",),
    "caption": ("caption",),
    "messages": ("messages",),
}
# Ours, then those of others: two of one row are ambiguous, the second row counts only without the first.
TEXT_NAMES = (("text", "prompt"), ("goal", "behavior", "instruction", "question"))
MISSING_WORDS = ("nan", "NaN", "None", "null")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read.

    Attributes:
        line: where it starts, from 1.
        values: its values by lower-case column name.
        place: what a message calls it where the line is not enough, such as ``record 3``.
    """

    line: int
    values: dict[str, object]
    place: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """What a source holds.

    Attributes:
        columns: every column name that occurs, in lower case.
        records: the records in order, read once; reading them may add to the problems of the source.
        cells: whether values are cells of text, where a missing one may be spelled ``nan``.
    """

    columns: tuple[str, ...]
    records: Iterable[Record]
    cells: bool = False


class Problems:
    """What is wrong with one source so far."""

    def __init__(self, source: Path | str) -> None:
        self._source = source
        self._found: list[Problem] = []
        self._garbled: set[int] = set()

    def add(self, line: int, reason: str, place: str = "") -> None:
        """Notes a problem, unless the line is garbled: what it seems to say then means nothing."""
        if line not in self._garbled:
            self._found.append(Problem(line, f"{place}: {reason}" if place else reason))

    def add_garbled(self, line: int, reason: str) -> None:
        """Notes a line whose bytes are not text."""
        self.add(line, reason)
        self._garbled.add(line)

    def stop(self, reason: str) -> NoReturn:
        """Ends the reading with a problem of the source as a whole, told before the others."""
        self._found.append(Problem(0, reason))
        raise PromptFileError(self._source, self._in_order())

    def check(self) -> None:
        """Raises `PromptFileError` with all problems in the order of their lines, if there are any."""
        if self._found:
            raise PromptFileError(self._source, self._in_order())

    def _in_order(self) -> list[Problem]:
        return sorted(self._found, key=lambda problem: problem.line)


def prompt_set(
    table: Table,
    problems: Problems,
    *,
    name: str,
    stem: str,
    label: str | None = None,
    text_column: str | None = None,
    folder: Path | None = None,
) -> PromptSet:
    """Turns the records of a table into a set of prompts.

    Args:
        table: the records.
        problems: what reading them finds wrong; the rules that records break are added.
        name: the name of the set.
        stem: the start of the ids made for a table without ids.
        label: the label of records without one.
        text_column: the column of the instruction, needed where several could be.
        folder: where the paths of pictures start; None leaves them as they are.

    Raises:
        PromptFileError: with every problem found, or because there is no prompt at all.
        UsageError: `label` is not the word for a label.
    """
    default = None if label is None else _default_label(label)
    try:
        columns = _columns(table.columns, text_column)
    except fields.FieldError as error:
        prompts = []
        # Reading on without the column, since what is wrong with the lines is worth knowing too.
        if sum(1 for _ in table.records) or table.columns:
            problems.stop(str(error))
    else:
        prompts = _prompts(table.records, _Reading(columns, table.cells, stem, default, folder), problems)
    problems.check()
    if not prompts:
        problems.stop("has no prompts, only a header or an empty list")
    return PromptSet(name, tuple(prompts))


def _default_label(word: str) -> Label:
    try:
        return fields.label(word)
    except fields.FieldError as error:
        raise UsageError(str(error)) from None


def _prompts(records: Iterable[Record], reading: "_Reading", problems: Problems) -> list[Prompt]:
    prompts: list[Prompt] = []
    owners: dict[str, str] = {}
    for number, record in enumerate(records, 1):
        place = record.place or f"line {record.line}"
        try:
            prompt_id = reading.id(record, number)
            owner = owners.setdefault(prompt_id, place)
            if owner != place:
                raise fields.FieldError(f"id {prompt_id!r} is already that of {owner}; ids must be unique")
            prompts.append(reading.prompt(record, prompt_id))
        except fields.FieldError as error:
            problems.add(record.line, str(error), record.place)
    return prompts


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a record becomes a prompt: the column of each field, and what fills the gaps."""

    columns: dict[str, str]
    cells: bool
    stem: str
    label: Label | None
    folder: Path | None

    def id(self, record: Record, number: int) -> str:
        if "id" not in self.columns:
            return fields.prompt_id(f"{self.stem}-{number:05}")
        value = self._value(record, "id")
        if value is None:
            raise fields.FieldError("id is missing or empty, though other records have one")
        return fields.prompt_id(value)

    def prompt(self, record: Record, prompt_id: str) -> Prompt:
        label = self._value(record, "label")
        image, caption = self._value(record, "image"), self._value(record, "caption")
        if image is not None and caption is not None:
            raise fields.FieldError(
                "has both an image and a caption, but one thing stands before the instruction; make two records of it"
            )
        return Prompt(
            id=prompt_id,
            messages=self._messages(record),
            label=self.label if label is None else fields.label(label),
            category=self._name(record, "category"),
            group=self._name(record, "group"),
            split=self._name(record, "split"),
            image=None if image is None else self._image(image),
            caption=None if caption is None else fields.instruction("caption", caption),
        )

    def _value(self, record: Record, field: str) -> object:
        """The value of a field; None where the column, the key or the content is missing."""
        value = record.values.get(self.columns[field]) if field in self.columns else None
        return None if value == "" else value

    def _image(self, value: object) -> str:
        path = fields.image(value)
        return path if self.folder is None else str(self.folder / path)

    def _name(self, record: Record, field: str) -> str | None:
        value = self._value(record, field)
        return None if value is None else fields.name(field, value)

    def _messages(self, record: Record) -> tuple[Message, ...]:
        messages = self._value(record, "messages")
        if messages is None and "text" in self.columns:
            return (Message("user", self._text(record)),)
        return fields.conversation(messages)

    def _text(self, record: Record) -> str:
        column, text = self.columns["text"], self._value(record, "text")
        if text is None:
            raise fields.FieldError(f"{column} is missing or empty")
        if self.cells and text in MISSING_WORDS:
            raise fields.FieldError(f"{column} is {text!r}, which looks like a missing value")
        return fields.instruction(column, text)


def _columns(names: tuple[str, ...], text_column: str | None) -> dict[str, str]:
    """The column of each field that has one."""
    text = _text_column(names, text_column)
    found = {field: next((a for a in aliases if a in names), None) for field, aliases in NAMES.items()}
    if text_column is not None:
        found["messages"] = None  # the column that was chosen leaves nothing to another one
    found["messages" if text == "messages" else "text"] = text
    return {field: column for field, column in found.items() if column is not None}


def _text_column(names: tuple[str, ...], wanted: str | None) -> str | None:
    """The column of the instruction; None where only conversations are given."""
    if wanted is not None:
        if wanted.lower() not in names:
            raise fields.FieldError(f"has no column {shown(wanted)}; found {_listed(names)}")
        return wanted.lower()
    for aliases in TEXT_NAMES:
        found = [name for name in aliases if name in names]
        if len(found) == 1:
            return found[0]
        if found and (aliases is TEXT_NAMES[0] or "messages" not in names):
            raise fields.FieldError(
                f"has several text columns ({', '.join(found)}); choose one with text_column (--text-column)"
            )
    if "messages" not in names:
        raise fields.FieldError(
            f"has no text column; found {_listed(names)}; choose one with text_column (--text-column)"
        )
    return None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(shown(name) for name in names[:12]) + (", ..." if len(names) > 12 else "") or "nothing"
