"""Harmful pairs, each beside one of its harmless twins: what ladders and transplants are measured on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.errors import UsageError
from interp.prompts.pairs import Pair

FEWEST = 4
"""Concepts below which nothing is resampled."""


@dataclass(frozen=True, slots=True)
class Twinned:
    """Harmful pairs and their twins, row by row.

    Attributes:
        harmful: each once.
        twins: of every harmful pair one; a twin may stand beside several.
    """

    harmful: tuple[Pair, ...]
    twins: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.harmful)

    @property
    def units(self) -> tuple[str, ...]:
        """The concept of every harmful pair: what is resampled, its twin with it."""
        return tuple(pair.unit for pair in self.harmful)

    @property
    def scenes(self) -> tuple[str, ...]:
        """The scene of every row."""
        return tuple(str(pair.scene) for pair in self.harmful)


def twinned(pairs: Sequence[Pair], *, most: int | None = None, seed: int = 0, distinct: bool = False) -> Twinned:
    """Takes the harmful pairs that have a twin, a few of each scene where they are too many.

    Args:
        pairs: any; those without a scene and those without a twin are left out.
        most: how many at most. Scenes take turns, and within a scene concepts do, so that none is left out while
            another has two.
        seed: which of them are drawn, and which twin where there are several.
        distinct: whether no caption may stand there twice.

    Raises:
        UsageError: when fewer than `FEWEST` concepts are left.
    """
    rng = np.random.default_rng(seed)
    twins: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.twin_of is not None:
            twins.setdefault(pair.twin_of, []).append(pair)
    harmful = [pair for pair in pairs if pair.label == "harmful" and pair.id in twins]
    ordered = _in_turn(harmful, rng)
    if distinct:
        first: dict[str, Pair] = {}
        for pair in ordered:
            first.setdefault(pair.caption, pair)
        ordered = list(first.values())
    chosen = ordered[:most]
    kept = [pair for pair in harmful if pair.id in {p.id for p in chosen}]
    if len({pair.unit for pair in kept}) < FEWEST:
        raise UsageError(
            f"{len({pair.unit for pair in kept})} harmful concepts have a harmless twin, {FEWEST} are needed: add "
            "pairs with a scene, and twins that name them in twin_of."
        )
    beside = [twins[pair.id][int(rng.integers(len(twins[pair.id])))] for pair in kept]
    return Twinned(tuple(kept), tuple(beside))


def _in_turn(pairs: Sequence[Pair], rng: np.random.Generator) -> list[Pair]:
    """All pairs in an order in which scenes take turns, and in every scene its concepts."""
    nth: dict[tuple[str, ...], int] = {}

    def turn(*key: str) -> int:
        nth[key] = nth.get(key, -1) + 1
        return nth[key]

    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    by_concept = sorted(((turn(str(p.scene), p.unit), p) for p in shuffled), key=lambda found: found[0])
    by_scene = sorted(((turn(str(p.scene)), p) for _, p in by_concept), key=lambda found: found[0])
    return [pair for _, pair in by_scene]
