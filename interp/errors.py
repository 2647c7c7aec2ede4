"""The errors a user can cause: each names the value, the place and the remedy, and carries the exit code of the CLI."""

from dataclasses import dataclass
from pathlib import Path


class InterpError(Exception):
    """Any error with a message for the user; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(InterpError):
    """An argument that can not mean anything, such as an unknown position or layer."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad place in a prompt file; ``line`` counts from 1, 0 means the file as a whole."""

    line: int
    reason: str


class PromptFileError(InterpError):
    """A prompt file that can not be read, with every bad line and not only the first."""

    exit_code = 3
    shown = 20

    def __init__(self, path: Path | str, problems: list[Problem]) -> None:
        self.path = Path(path)
        self.problems = tuple(problems)
        lines = [f"{path}:{p.line}: {p.reason}" for p in problems[: self.shown]]
        if len(problems) > self.shown:
            lines.append(f"... and {len(problems) - self.shown} more bad lines")
        super().__init__("\n".join(lines))


class ImageError(InterpError):
    """A picture that can not be read, with what to do about it."""

    exit_code = 3

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        super().__init__(f"{path}: {reason}.")


class StudyError(InterpError):
    """A finished study that can not be read or trusted."""

    exit_code = 3


class ModelError(InterpError):
    """A model that can not be found, loaded or read."""

    exit_code = 4


class FetchError(ModelError):
    """A package that can not be fetched, or is not the one that was pinned."""


class ModelMismatch(ModelError):
    """A run, probe or adapter made with something else than what is offered now."""

    def __init__(self, place: Path | str, field: str, expected: object, found: object) -> None:
        self.place, self.field, self.expected, self.found = place, field, expected, found
        super().__init__(
            f"{place}: made with {field} = {expected!r}, but now {field} = {found!r}. "
            "Use what it was made with, or start a new run."
        )


class CacheError(InterpError):
    """An activation cache that can not be written or trusted."""

    exit_code = 5


class CorruptShard(CacheError):
    """A file of a run whose content is not what was committed."""

    def __init__(self, path: Path | str, expected: object, found: object) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"{path}: expected {expected}, found {found}. The file was changed or damaged after it was "
            "written; `interp harvest ... --repair` sets it aside and computes it again."
        )


class DiskFull(CacheError):
    """A disk with too little room for the run; everything committed so far is kept."""

    def __init__(self, path: Path | str, needed: int, free: int) -> None:
        self.path, self.needed, self.free = path, needed, free
        super().__init__(
            f"{path}: needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free. Finished shards are "
            "kept: make room or choose another --out, then run the same command again."
        )


class NonFinite(CacheError):
    """NaN or infinity in a state, with the prompt and layer where it appeared."""


class TrainingError(InterpError):
    """A training that can not start or go on, because it would train something else than it says."""

    exit_code = 6


class Interrupted(InterpError):
    """A stop asked for by the user; what was committed is kept and the next run continues."""

    exit_code = 130
