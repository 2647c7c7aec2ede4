"""What a prompt set is made of: how many of each kind, and what lies in several splits."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from interp.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Count:
    """How many prompts of each kind share a value.

    Attributes:
        field: ``all``, ``split`` or ``category``.
        value: the value; empty for all, and for prompts without one.
        harmful: how many are harmful.
        harmless: how many are harmless.
        unlabelled: how many have no label.
    """

    field: str
    value: str
    harmful: int
    harmless: int
    unlabelled: int

    @property
    def total(self) -> int:
        """How many prompts there are, with a label or without."""
        return self.harmful + self.harmless + self.unlabelled

    @property
    def lopsided(self) -> bool:
        """Whether there are several labelled prompts, all of one kind."""
        return min(self.harmful, self.harmless) == 0 and max(self.harmful, self.harmless) > 1


@dataclass(frozen=True, slots=True)
class Crossing:
    """Something that lies in several splits, so that a test meets what was learnt.

    Attributes:
        field: ``group`` or ``image``.
        value: its name.
        splits: where it lies, at least two, sorted.
    """

    field: str
    value: str
    splits: tuple[str, ...]


def count_kinds(prompts: Sequence[Prompt]) -> tuple[Count, ...]:
    """Counts labels overall, then by split and by category where any prompt has one, in order of first appearance."""
    counts = [_count("all", "", prompts)]
    for field in ("split", "category"):
        rows: dict[str | None, list[Prompt]] = defaultdict(list)
        for p in prompts:
            rows[getattr(p, field)].append(p)
        if set(rows) != {None}:
            counts += [_count(field, value or "", found) for value, found in rows.items()]
    return tuple(counts)


def find_crossings(prompts: Sequence[Prompt]) -> tuple[Crossing, ...]:
    """Finds groups and pictures of which prompts lie in several splits; prompts without a split lie in none."""
    found = []
    for field in ("group", "image"):
        splits: dict[str, set[str]] = defaultdict(set)
        for p in prompts:
            value = getattr(p, field)
            if value is not None and p.split is not None:
                splits[value].add(p.split)
        found += [Crossing(field, value, tuple(sorted(s))) for value, s in splits.items() if len(s) > 1]
    return tuple(found)


def _count(field: str, value: str, prompts: Sequence[Prompt]) -> Count:
    labels = Counter(p.label for p in prompts)
    return Count(field, value, labels["harmful"], labels["harmless"], labels[None])
