"""Leaks: how well the form of a prompt alone tells harmful from harmless, held out and with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from interp.metrics import auroc, bootstrapped
from interp.prompts.evidence import evidence
from interp.prompts.prompt import Prompt
from interp.prompts.surface import SURFACES, surface_scores
from interp.stats import Estimate, group_codes, group_weights

LEAK = 0.6
"""A surface leaks where its AUROC is above this with the whole interval."""
FOLDS = 5
FEWEST = 10
"""Fewest groups with a prompt of a kind; of fewer, held-out scores say nothing."""
_CELLS = 2_000_000


@dataclass(frozen=True, slots=True)
class Leak:
    """What one surface gives away.

    Attributes:
        surface: one of `interp.prompts.surface.SURFACES`.
        auroc: held-out AUROC with its 95 % interval over groups.
        evidence: what differs, in words.
    """

    surface: str
    auroc: Estimate
    evidence: str

    @property
    def found(self) -> bool:
        """Whether the surface leaks: the whole interval is above 0.6."""
        return self.auroc.lo > LEAK


def find_leaks(
    prompts: Sequence[Prompt],
    groups: Sequence[str] | None = None,
    *,
    surfaces: Sequence[str] = SURFACES,
    seed: int = 0,
) -> tuple[Leak, ...]:
    """Measures what every surface gives away of the label, with five folds of whole groups.

    Args:
        prompts: all with a label.
        groups: what is never parted, one name per prompt; the units of the prompts if left out.
        surfaces: which to measure.
        seed: of folds and bootstrap.

    Returns:
        One leak per surface in the given order; empty where fewer than ten groups hold a prompt of either kind. The
        interval is over prompts with the fitted classifiers given.
    """
    target = np.array([p.label == "harmful" for p in prompts], dtype=bool)
    groups = [p.unit for p in prompts] if groups is None else groups
    folds = grouped_folds(groups, target, seed=seed)
    if folds is None:
        return ()
    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(FOLDS)]
    weights = group_weights(groups, seed=seed)
    found = []
    for name in surfaces:
        scores = surface_scores(name, prompts, target, splits)
        estimate = _estimate(scores, target, folds, weights)
        found.append(Leak(name, estimate, evidence(name, prompts, target)))
    return tuple(found)


def grouped_folds(
    groups: Sequence[str], target: Bool[ndarray, " prompt"], *, seed: int = 0
) -> Int[ndarray, " prompt"] | None:
    """Five folds of whole groups with about the same share of both kinds.

    Args:
        groups: what is never parted.
        target: which prompts are of one kind.
        seed: of the order in which groups are dealt.

    Returns:
        Fold 0 to 4 of each prompt; None where fewer than ten groups hold a prompt of either kind.
    """
    if not len(groups):
        return None
    codes = group_codes(groups)
    size = np.bincount(codes)
    hits = np.bincount(codes, weights=target)
    if min(np.count_nonzero(hits), np.count_nonzero(size - hits)) < FEWEST:
        return None
    shuffled = np.random.default_rng(seed).permutation(len(size))
    # Groups of like composition and size are dealt out one after the other, so every fold gets its part of them.
    order = shuffled[np.lexsort((size[shuffled], (hits / size)[shuffled]))]
    fold = np.empty(len(size), dtype=int)
    fold[order] = np.arange(len(size)) % FOLDS
    return np.asarray(fold[codes])


def _estimate(
    scores: Float[ndarray, " prompt"],
    target: Bool[ndarray, " prompt"],
    folds: Int[ndarray, " prompt"],
    weights: Float[ndarray, "resample prompt"],
) -> Estimate:
    # In blocks: for many prompts the intermediate arrays of all resamples at once would not fit into memory.
    blocks = np.array_split(weights, max(1, weights.size // _CELLS))
    drawn = np.concatenate([auroc(scores, target, block, folds) for block in blocks])
    return bootstrapped(drawn, float(auroc(scores, target, folds=folds)[0]), len(scores))
