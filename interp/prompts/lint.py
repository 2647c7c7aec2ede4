"""The leak linter: what of a prompt set tells harmful from harmless without a model, and what to do about it."""

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from interp.prompts.composition import Count, Crossing, count_kinds, find_crossings
from interp.prompts.duplicates import Duplicate, find_duplicates
from interp.prompts.leaks import Leak, find_leaks
from interp.prompts.matching import Match, match
from interp.prompts.prompt import PromptSet
from interp.prompts.verdicts import balance_lines, crossing_lines, duplicate_lines, leak_lines, match_lines


@dataclass(frozen=True, slots=True)
class Lint:
    """What the linter found.

    Attributes:
        name: of the prompt set.
        counts: class balance, overall, by split and by category.
        leaks: one per surface; empty where fewer than ten groups hold a prompt of either kind.
        duplicates: pairs of prompts that say the same.
        crossings: groups and pictures that lie in several splits.
        match: the proposed subset or why there is none; None where leaks could not be looked for.
        verdicts: what all this comes to, a sentence each.
    """

    name: str
    counts: tuple[Count, ...]
    leaks: tuple[Leak, ...]
    duplicates: tuple[Duplicate, ...]
    crossings: tuple[Crossing, ...]
    match: Match | None
    verdicts: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Everything as JSON values; a number that is not finite is None."""
        found = [{**asdict(leak), "leaks": leak.found} for leak in self.leaks]
        record: dict[str, Any] = _plain({**asdict(self), "leaks": found})
        return record


def lint(prompts: PromptSet, *, seed: int = 0) -> Lint:
    """Looks for what gives the label of prompts away, for repetitions, and for a matched subset.

    Args:
        prompts: any set; leaks and matches need at least ten groups with a prompt of either kind, the rest nothing.
        seed: of folds and bootstrap.
    """
    labelled = [p for p in prompts if p.label is not None]
    counts, crossings = count_kinds(prompts.prompts), find_crossings(prompts.prompts)
    leaks = find_leaks(labelled, seed=seed)
    matched = match(labelled, seed=seed) if leaks else None
    duplicates = find_duplicates(prompts.prompts)
    verdicts = (
        *balance_lines(counts, judged=bool(leaks)),
        *leak_lines(leaks),
        *crossing_lines(crossings),
        *duplicate_lines(duplicates),
        *match_lines(matched, len(labelled)),
    )
    return Lint(prompts.name, counts, leaks, duplicates, crossings, matched, verdicts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
