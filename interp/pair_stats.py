"""Intervals and permutations of things that are compared pair by pair; of single ones they come from `interp.stats`.

The groups are the unit: a pair is of two different groups, and what is exchanged are whole groups.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from interp.stats import LEVEL, PERMUTATIONS


def pair_mean(
    cells: Float[ndarray, "*rest group group"],
    weights: Float[ndarray, "resample group"],
    allowed: Bool[ndarray, "group group"],
) -> Float[ndarray, "*rest resample"]:
    """The mean over pairs of groups in every resample, a U-statistic; a group drawn twice is no pair with itself.

    Args:
        cells: one number per pair of groups.
        weights: (resample, group) how often every group is drawn.
        allowed: which pairs count; false on the diagonal.

    Returns:
        NaN in a resample that draws no pair that counts.
    """
    total = ((weights @ np.where(allowed, cells, 0.0)) * weights).sum(-1)
    count = ((weights @ allowed.astype(np.float64)) * weights).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))


def permuted_partners(
    groups: Int[ndarray, " row"],
    within: Int[ndarray, " group"],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Int[ndarray, "permutation row"]:
    """For every row the row it is set against when whole groups exchange partners, as they would were pairs chance.

    The k-th row of a group meets the k-th row of the group drawn for it (counted round where that one is smaller), so
    that a permuted mean has as many terms as the real one.

    Args:
        groups: number of every row's group, 0 to n - 1, each with a row.
        within: of every group, the block inside which it is exchanged.
        permutations: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    rows = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=len(within))
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    place = np.empty(len(groups), dtype=np.int64)
    place[rows] = np.arange(len(groups)) - starts[groups[rows]]
    blocks = [np.flatnonzero(within == block) for block in np.unique(within)]
    found = np.empty((permutations, len(groups)), dtype=np.int64)
    for one in found:
        drawn = np.empty(len(within), dtype=np.int64)
        for block in blocks:
            drawn[block] = rng.permutation(block)
        partner = drawn[groups]
        one[:] = rows[starts[partner] + place % sizes[partner]]
    return found


def max_p(observed: Float[ndarray, " layer"], permuted: Float[ndarray, "permutation layer"]) -> float:
    """The p-value of the layer that stands out most above its permutations, the choice of the layer paid for.

    Layers are made comparable by mean and spread over the permutations and the observed value together; then the
    largest is compared with the largest of every permutation (Westfall & Young 1993). One-sided.

    Returns:
        (1 + permutations at least as extreme) / (1 + permutations), in (0, 1].
    """
    both = np.concatenate([observed[None], permuted])
    spread = both.std(0)
    highest = np.divide(both - both.mean(0), spread, out=np.zeros_like(both), where=spread > 0).max(1)
    return float((1 + (highest[1:] >= highest[0] - 1e-12).sum()) / len(both))


def jackknife_interval(
    value: Float[ndarray, "*rest"], left_out: Float[ndarray, "group *rest"], level: float = LEVEL
) -> tuple[Float[ndarray, "*rest"], Float[ndarray, "*rest"]]:
    """The normal interval from the spread of the values without each group in turn (Efron & Stein 1981).

    For statistics of pairs that a resample with repeated groups would bias.
    """
    n = len(left_out)
    reach = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt((n - 1) * left_out.var(0))
    return np.asarray(value - reach), np.asarray(value + reach)
