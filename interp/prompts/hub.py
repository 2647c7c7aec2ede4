"""Prompt sets of the Hugging Face hub, and one door to prompts wherever they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import Problem, PromptFileError, UsageError
from interp.prompts.files import read_prompts
from interp.prompts.prompt import PromptSet
from interp.prompts.records import Problems, Record, Table, prompt_set
from interp.prompts.strict_json import repeated

PREFIX = "hf:"
BUNDLED = ("twins", "subtle", "held-out")
BATCH = 100


def load_prompts(
    where: Path | str,
    *,
    label: str | None = None,
    text_column: str | None = None,
    name: str | None = None,
    offline: bool = False,
) -> PromptSet:
    """Loads prompts from where a user says: ``hf:org/name``, ``twins:test``, ``subtle:test``, ``held-out`` or a file.

    Args:
        where: the place; see `read_hub` and `read_prompts` for what each may be.
        label: harmful or harmless, for the prompts without a label of their own; the twins have theirs.
        text_column: the column of the instruction, needed where several could be.
        name: the name of a set read from a file.
        offline: take a dataset of the hub from the local cache only.

    Raises:
        PromptFileError: the prompts can not be read, with every bad line.
        UsageError: `where` or `label` can not mean anything.
    """
    source, _, rest = str(where).partition(":")
    if f"{source}:" == PREFIX:
        return read_hub(str(where), label=label, text_column=text_column, offline=offline)
    if source in BUNDLED:
        from interp.prompts import twins

        if source == "held-out":
            return twins.held_out_twins()
        return (twins.bundled_twins if source == "twins" else twins.subtle_twins)(rest or None)
    return read_prompts(where, label=label, text_column=text_column, name=name)


def read_hub(
    dataset: str, *, label: str | None = None, text_column: str | None = None, offline: bool = False
) -> PromptSet:
    """Reads a dataset of the Hugging Face hub, or a local dataset folder, under the rules of prompt files.

    Args:
        dataset: ``hf:org/name``, ``hf:org/name:config`` or ``hf:org/name:config:split``; a part left empty is
            the default, which for the split is train or else the only one.
        label: harmful or harmless, for the prompts without a label of their own.
        text_column: the column of the instruction, needed where several could be.
        offline: take it from the local cache only and make no network call.

    Raises:
        PromptFileError: the dataset can not be had, or with every bad row, where the line is the row from 1.
        UsageError: `dataset` or `label` can not mean anything.
    """
    address = _Address.parse(dataset)
    problems = Problems(dataset)
    table = _table(_split(address, dataset, offline), problems)
    stem = Path(address.name).name
    return prompt_set(table, problems, name=dataset, stem=stem, label=label, text_column=text_column)


@dataclass(frozen=True, slots=True)
class _Address:
    """The parts of ``hf:org/name:config:split``."""

    name: str
    config: str | None
    split: str | None

    @classmethod
    def parse(cls, dataset: str) -> "_Address":
        parts = dataset.removeprefix(PREFIX).split(":", 2)
        name, config, split = (*parts, "", "")[:3]
        # A bare word is refused: the library would take some, such as csv, for readers of the working folder.
        known = "/" in name or _is_folder(name)
        if not dataset.startswith(PREFIX) or not known:
            raise UsageError(
                f"{dataset!r} is no dataset; write hf:org/name, hf:org/name:config, hf:org/name:config:split "
                "or hf:folder."
            )
        return cls(name, config or None, split or None)


def _is_folder(name: str) -> bool:
    try:
        return name != "" and Path(name).is_dir()  # an empty path would be the working folder
    except OSError:  # such as a name too long for the file system
        return False


def _split(address: _Address, dataset: str, offline: bool) -> Any:
    """The chosen split as a `datasets.Dataset`."""
    found = _fetched(address, dataset, offline)
    if address.split is not None:
        return found
    if "train" in found:
        return found["train"]
    if len(found) == 1:
        return next(iter(found.values()))
    reason = f"has the splits {', '.join(found)}; choose one, as in hf:{address.name}:{address.config or ''}:"
    raise PromptFileError(dataset, [Problem(0, reason + next(iter(found), "name"))])


def _fetched(address: _Address, dataset: str, offline: bool) -> Any:
    """What `datasets.load_dataset` returns: the split of the address, or a dict of all splits without one."""
    from datasets import load_dataset

    # A folder goes in by its full path, which can not be the name of a reader of the library or of a hub set.
    place = str(Path(address.name).resolve()) if _is_folder(address.name) else address.name
    try:
        with _network(offline):
            return load_dataset(place, address.config, split=address.split)
    except Exception as error:  # the library, its readers and its HTTP clients share no base class of errors
        raise PromptFileError(dataset, [Problem(0, _reason(error, offline))]) from error


@contextmanager
def _network(offline: bool) -> Iterator[None]:
    """Inside the block both libraries are offline, if asked for."""
    import datasets
    import huggingface_hub

    # The environment variables of the two are read at import; these switches at every request.
    switched: tuple[Any, ...] = (datasets.config, huggingface_hub.constants) if offline else ()
    before = [module.HF_HUB_OFFLINE for module in switched]
    try:
        for module in switched:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switched, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _reason(error: Exception, offline: bool) -> str:
    """One line for any error of the library: the first line of what it says, and of what that came from."""
    told = [str(e).strip().partition("\n")[0] for e in (error, error.__cause__) if e is not None]
    said = "; ".join(dict.fromkeys(filter(None, told))) or type(error).__name__
    if not isinstance(error, ConnectionError):
        return f"can not be loaded: {said}"
    if offline:
        return f"is not in the local cache, and offline nothing is fetched: {said}"
    return f"can not be reached; check the network, or use a copy in a local folder: {said}"


def _table(split: Any, problems: Problems) -> Table:
    twice = repeated(name.lower() for name in split.column_names)
    if twice is not None:
        problems.add(0, f"has the column {twice!r} twice, with letters in different case; rename one")
    return Table(tuple(name.lower() for name in split.column_names), _rows(split, problems))


def _rows(split: Any, problems: Problems) -> Iterator[Record]:
    """Yields the rows as stored: pictures and sounds are not decoded, which would take other libraries."""
    stored = (row for batch in split.with_format("arrow").iter(BATCH) for row in _single_rows(batch))
    for number, single in enumerate(stored, 1):
        place = f"row {number}"
        try:
            (row,) = single.to_pylist()
        except UnicodeDecodeError:
            problems.add(number, "has text that is not UTF-8", place)
        else:
            yield Record(number, {name.lower(): value for name, value in row.items()}, place)


def _single_rows(batch: Any) -> Iterator[Any]:
    """Yields tables of one row, so that a row of bad bytes does not take its neighbours along."""
    return (batch.slice(row, 1) for row in range(batch.num_rows))
