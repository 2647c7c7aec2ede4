"""Who is trained on, who chooses, who is tested: folds that never part a group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from interp.errors import UsageError
from interp.stats import group_codes

FEWEST = 3
"""Folds needed: one to test, one to choose the layer and the penalty, and one to train on."""


@dataclass(frozen=True, slots=True)
class Folds:
    """A partition of the rows; each part is tested once by a probe that saw neither it nor the parts it chose with.

    Attributes:
        names: of the folds, such as policy categories.
        of: the fold number of every row.
    """

    names: tuple[str, ...]
    of: Int[ndarray, " row"]

    def __len__(self) -> int:
        return len(self.names)

    def tested(self, fold: int) -> Bool[ndarray, " row"]:
        """The rows that are scored."""
        return np.asarray(self.of == fold)

    def validated(self, fold: int) -> Bool[ndarray, " row"]:
        """The rows that choose penalty, layer and threshold: the next fold, or the next two of six folds and more."""
        following = [(fold + k) % len(self) for k in range(1, 3 if len(self) >= 6 else 2)]
        return np.isin(self.of, following)

    def trained(self, fold: int) -> Bool[ndarray, " row"]:
        """The rows a probe is fitted on: all the others."""
        return np.asarray(~self.tested(fold) & ~self.validated(fold))

    def splits(self) -> list[tuple[Int[ndarray, " train"], Int[ndarray, " test"]]]:
        """(train, test) row numbers of every fold for baselines, which choose nothing and so train on all the rest."""
        return [(np.flatnonzero(self.of != k), np.flatnonzero(self.of == k)) for k in range(len(self))]


def leave_one_out(names: Sequence[str], groups: Sequence[str]) -> Folds:
    """One fold per name: a category, a family, a language, a data set.

    Args:
        names: of every row.
        groups: of every row; a group with rows under two names would leak.

    Raises:
        UsageError: for fewer than three names, or a group that two names share.
    """
    kinds = tuple(dict.fromkeys(names))
    if len(kinds) < FEWEST:
        raise UsageError(
            f"only {len(kinds)} different names ({', '.join(kinds)}) to leave out one at a time; "
            f"{FEWEST} are needed: use folds by group."
        )
    owner: dict[str, str] = {}
    for name, group in zip(names, groups, strict=True):
        if owner.setdefault(group, name) != name:
            raise UsageError(f"group {group!r} has rows under {owner[group]!r} and {name!r}; a split would part it.")
    return Folds(kinds, np.array([kinds.index(name) for name in names]))


def by_group(groups: Sequence[str], count: int, *, seed: int = 0) -> Folds:
    """Folds of whole groups, drawn at random, of nearly equal numbers of groups.

    Raises:
        UsageError: for fewer than three folds, or fewer groups than folds.
    """
    codes = group_codes(groups)
    n = int(codes.max()) + 1 if len(codes) else 0
    if count < FEWEST or n < count:
        raise UsageError(f"{count} folds of {n} groups: at least {FEWEST} folds are needed, and a group for each.")
    place = np.random.default_rng(seed).permutation(n) % count
    return Folds(tuple(f"fold {k}" for k in range(count)), place[codes])
