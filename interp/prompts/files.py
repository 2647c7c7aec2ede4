"""Prompt files: CSV, TSV, JSON lines and JSON read into records, with every bad line found in one pass."""

import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from interp.errors import Problem, PromptFileError
from interp.prompts.prompt import PromptSet
from interp.prompts.records import Problems, Record, Table, prompt_set
from interp.prompts.strict_json import ArrayReader, JsonError, StrictDecoder, repeated

BOM = b"\xef\xbb\xbf"
LONGEST_CELL = 2**20


def read_prompts(
    path: Path | str, *, label: str | None = None, text_column: str | None = None, name: str | None = None
) -> PromptSet:
    """Reads a prompt file; the suffix .csv, .tsv, .jsonl or .json says how.

    Args:
        path: the file.
        label: harmful or harmless, for the prompts without a label of their own.
        text_column: the column of the instruction, needed where several could be.
        name: the name of the set, the file name without suffix when not given.

    Raises:
        PromptFileError: with every bad line of the file, or because it can not be read at all.
        UsageError: `label` is not the word for a label.
    """
    path = Path(path)
    table, problems = read_table(path)
    return prompt_set(
        table,
        problems,
        name=name or path.stem,
        stem=path.stem,
        label=label,
        text_column=text_column,
        folder=path.parent,
    )


def read_table(path: Path) -> tuple[Table, Problems]:
    """Opens a table of records by its suffix; reading the records adds to the problems.

    Raises:
        PromptFileError: the file can not be read, is empty or has no sound header.
    """
    content = _content(path).removeprefix(BOM)
    problems = Problems(path)
    if not content or content.isspace():
        problems.stop("is empty")
    return READERS[path.suffix.lower()](content, problems), problems


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            reason = "is a folder; name one file in it"
        elif path.suffix.lower() not in READERS:
            reason = f"has the suffix {path.suffix!r}; it must be one of {', '.join(READERS)}"
        elif not path.is_file():
            reason = "is not there; check the path (a dataset of the Hugging Face hub is hf:org/name)"
        else:
            return path.read_bytes()
    except OSError as error:
        reason = f"can not be read: {error.strerror}"
    raise PromptFileError(path, [Problem(0, reason)])


def _sound_lines(content: bytes, problems: Problems, newline: str | None) -> Iterator[str]:
    r"""Yields every line as text, with what is no text replaced by U+FFFD once it is among the problems.

    Args:
        content: the file without byte order mark.
        problems: gains one for each line that is not UTF-8 or has a NUL character.
        newline: as for `open`: None makes every line end in ``\n``, an empty string leaves the ends alone.
    """
    # surrogateescape maps bad bytes to what no good byte maps to, so the line that has them can be told.
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline=newline)
    for number, line in enumerate(lines, 1):
        garble = _garble(line)
        if garble is not None:
            problems.add_garbled(number, garble)
            line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "\ufffd")
        yield line


def _garble(line: str) -> str | None:
    if "\0" in line:
        return "has a NUL character; if the file is UTF-16, save it as UTF-8"
    try:
        line.encode()
    except UnicodeEncodeError as error:
        return f"byte 0x{ord(line[error.start]) - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
    return None


def _cell_table(content: bytes, problems: Problems, delimiter: str) -> Table:
    """The table under the first row, which names the columns; unnamed columns are left out."""
    rows = _rows(_sound_lines(content, problems, newline=""), problems, delimiter)
    line, header = next(rows, (0, []))
    problems.check()  # without a sound header the rows below mean nothing
    columns = tuple(cell.strip().lower() for cell in header)
    twice = repeated(column for column in columns if column)
    if twice is not None:
        problems.add(line, f"the header names the column {twice!r} twice; rename one")
    return Table(tuple(filter(None, columns)), _row_records(rows, columns, problems), cells=True)


def _rows(lines: Iterator[str], problems: Problems, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, each with the line it starts on."""
    # Cells are measured in `_row_records`: at a limit of its own the reader would resume in mid-cell. The
    # limit belongs to the whole process, where another thread may be reading, so it is never lowered again.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            problems.add(line, "a quote opened here is never closed" if unclosed else f"not CSV: {error}")
        else:
            if row:
                yield line, row


def _row_records(
    rows: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], problems: Problems
) -> Iterator[Record]:
    for line, row in rows:
        longest = max(map(len, row))
        if len(row) != len(columns):
            counts = f"{len(row)} cells where the header has {len(columns)}"
            problems.add(line, f"has {counts}; quote a cell that holds the delimiter")
        elif longest > LONGEST_CELL:
            problems.add(line, f"has a cell of {longest} characters; {LONGEST_CELL} are allowed")
        else:
            yield Record(line, {c: cell for c, cell in zip(columns, row, strict=True) if c})


def _lines_table(content: bytes, problems: Problems) -> Table:
    """The table of a file with one JSON object on each line."""
    decoder = StrictDecoder()
    records: list[Record] = []
    for number, line in enumerate(_sound_lines(content, problems, newline=None), 1):
        if not line.isspace():
            try:
                records.append(_object_record(decoder.parse(line), number))
            except JsonError as error:
                problems.add(number, str(error))
    return _object_table(records)


def _array_table(content: bytes, problems: Problems) -> Table:
    """The table of a file with one JSON array of objects."""
    elements = ArrayReader("".join(_sound_lines(content, problems, newline=None)))
    records: list[Record] = []
    try:
        for number, element in enumerate(elements, 1):
            place = f"record {number}"
            try:
                records.append(_object_record(element.sound(), elements.line, place))
            except JsonError as error:
                problems.add(elements.line, str(error), place)
    except JsonError as error:
        problems.add(elements.line, f"{error}; the rest was not read")
    return _object_table(records)


def _object_record(value: object, line: int, place: str = "") -> Record:
    if not isinstance(value, dict):
        raise JsonError(f"a record must be an object, found {type(value).__name__}")
    twice = repeated(key.lower() for key in value)
    if twice is not None:
        raise JsonError(f"key {twice!r} appears twice, with letters in different case")
    return Record(line, {key.lower(): held for key, held in value.items()}, place)


def _object_table(records: list[Record]) -> Table:
    """The table whose columns are all keys in the order they first appear."""
    return Table(tuple(dict.fromkeys(key for record in records for key in record.values)), records)


READERS: dict[str, Callable[[bytes, Problems], Table]] = {
    ".csv": partial(_cell_table, delimiter=","),
    ".tsv": partial(_cell_table, delimiter="\t"),
    ".jsonl": _lines_table,
    ".json": _array_table,
}
