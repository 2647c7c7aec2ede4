"""Files of responses: CSV, TSV, JSON lines and JSON, with every bad line found in one pass."""

from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown

import pandas as pd

from interp.prompts.fields import FieldError, name, string
from interp.prompts.files import BOM, READERS
from interp.prompts.records import MISSING_WORDS, Problems, Record, Table

REFUSED_WORDS = {
    "true": True,
    "yes": True,
    "1": True,
    "refused": True,
    "false": False,
    "no": False,
    "0": False,
    "complied": False,
}


@dataclass(frozen=True, slots=True)
class Response:
    """One response and what is known of it.

    Attributes:
        response: the text; it may be empty.
        group: what it is resampled with: its group, else its prompt, else itself alone.
        family: the refusal family it is of in truth; empty when unknown.
        refused: whether it is a refusal in truth; True where only a family is given, None when unknown.
    """

    response: str
    group: str
    family: str
    refused: bool | None


def read_responses(path: Path | str, *, column: str = "response") -> pd.DataFrame:
    """Reads a file of responses; the suffix .csv, .tsv, .jsonl or .json says how.

    Args:
        path: the file. Beside the responses it may have the columns ``group``, ``prompt``, ``family`` and
            ``refused`` (true or false, yes or no, 1 or 0, refused or complied).
        column: the column that holds the responses, upper and lower case alike.

    Returns:
        response, group and family (strings), refused (boolean, missing where unknown), in the order of the file.

    Raises:
        PromptFileError: with every bad line, or because the file can not be read or holds no responses.
    """
    path, problems = Path(path), Problems(path)
    table = _table(path, problems)
    column = column.strip().lower()
    if column not in table.columns:
        there = ", ".join(map(repr, table.columns)) or "none"
        problems.stop(f"has no column {column!r}, only {there}; say with --column which one holds the responses")
    found = [_response(record, column, table.cells, problems) for record in table.records]
    problems.check()
    if not found:
        problems.stop("has no responses, only a header or an empty list")
    frame = pd.DataFrame([(r.response, r.group, r.family, r.refused) for r in found if r is not None], dtype=object)
    frame.columns = pd.Index(["response", "group", "family", "refused"])
    return frame.astype({"response": "str", "group": "str", "family": "str", "refused": "boolean"})


def _table(path: Path, problems: Problems) -> Table:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        problems.stop(f"has the suffix {path.suffix!r}; it must be one of {', '.join(READERS)}")
    try:
        content = path.read_bytes().removeprefix(BOM)
    except OSError as error:
        problems.stop(f"can not be read: {error.strerror}; check the path")
    if not content or content.isspace():
        problems.stop("is empty")
    return reader(content, problems)


def _response(record: Record, column: str, cells: bool, problems: Problems) -> Response | None:
    """The response of a record, None when something is wrong with it."""
    known = {k: record.values.get(k) for k in ("group", "prompt", "family", "refused")}
    if cells:
        known = {k: None if v in MISSING_WORDS else v for k, v in known.items()}
    try:
        text = string(column, record.values.get(column, ""))
        group = _group(known) or f"line {record.line} {record.place}"
        family = "" if known["family"] is None else string("family", known["family"]).strip()
        refused = _refused(known["refused"])
    except FieldError as error:
        problems.add(record.line, str(error), record.place)
        return None
    return Response(text, group, family, True if refused is None and family else refused)


def _group(known: dict[str, object]) -> str:
    """The field that a response is grouped by, with its name so that a prompt is no group; empty without one."""
    for field in ("group", "prompt"):
        if known[field] not in (None, ""):
            return f"{field} {name(field, known[field])}"
    return ""


def _refused(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word and word not in REFUSED_WORDS:
        raise FieldError(f"refused {shown(value)} is none of {', '.join(REFUSED_WORDS)}")
    return REFUSED_WORDS.get(word)
