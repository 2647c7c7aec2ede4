"""Means over pairs with intervals over their concepts: what all measures of this study are made of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.stats import Estimate, bootstrap_mean, newcombe, percentile_interval, weighted_mean, wilson

Weights = Float[ndarray, "resample pair"]
POINT = 1e-9
"""An interval narrower than this has no width but that of rounding."""


def mean_of(values: Float[ndarray, " pair"], weights: Weights) -> Estimate:
    """The mean over the pairs that have a value, with its interval; NaN with n = 0 where none has."""
    there = ~np.isnan(values)
    if not there.any():
        return Estimate(np.nan, np.nan, np.nan, 0)
    value, lo, hi = (float(v) for v in bootstrap_mean(values[there], weights[:, there]))
    return Estimate(value, lo, hi, int(there.sum()))


def rate_of(refused: Float[ndarray, " pair"]) -> Estimate:
    """The share of refusals among the answers that can be read, with its Wilson interval.

    Args:
        refused: 1 for a refusal, 0 for none, NaN for an answer that is left out.
    """
    there = refused[~np.isnan(refused)]
    return wilson(int(there.sum()), len(there))


def difference_of(
    values: Float[ndarray, " pair"], first: Bool[ndarray, " pair"], weights: Weights, *, shares: bool = True
) -> tuple[Estimate, Float[ndarray, " resample"]]:
    """The mean over the first kind minus that over the other, and the same in every resample.

    Args:
        values: what is averaged; NaN is left out.
        first: which pairs are of the first kind.
        weights: of all pairs; concepts that hold both kinds are drawn together.
        shares: whether the values are verdicts or shares, 0 to 1, so that an interval can be had without resamples.

    Returns:
        NaN throughout where a kind has no value. Where no resample differs, as when nothing at all was refused, the
        interval of shares is `newcombe`'s, since a point would be certainty; that of other values is unknown, NaN.
    """
    there = ~np.isnan(values)
    kinds = there & first, there & ~first
    if not all(kind.any() for kind in kinds):
        return Estimate(np.nan, np.nan, np.nan, int(there.sum())), np.full(len(weights), np.nan)
    own, other = (weighted_mean(values[kind], weights[:, kind]) for kind in kinds)
    value = float(values[kinds[0]].mean() - values[kinds[1]].mean())
    still = np.nan, np.nan
    if shares:
        of_counts = newcombe(*(wilson(round(values[kind].sum()), int(kind.sum())) for kind in kinds))
        still = of_counts.lo, of_counts.hi
    lo, hi = bounds(own - other, still=still)
    return Estimate(value, lo, hi, int(there.sum())), own - other


def bounds(drawn: Float[ndarray, " resample"], *, still: tuple[float, float]) -> tuple[float, float]:
    """The percentile interval of resamples; ``still`` where none differs from another, since a point is certainty."""
    lo, hi = (float(bound) for bound in percentile_interval(drawn))
    return still if hi - lo < POINT else (lo, hi)


def told(found: Estimate, unit: str = "") -> str:
    """An estimate in words, such as ``2.31 [1.90, 2.70] nats``."""
    if np.isnan(found.value):
        return "no number"
    return f"{found.value:.2f} [{found.lo:.2f}, {found.hi:.2f}]{f' {unit}' if unit else ''}"


def told_share(found: Estimate) -> str:
    """A share in words, such as ``45 % [30 %, 61 %]``."""
    if np.isnan(found.value):
        return "no number"
    return f"{found.value:.0%} [{found.lo:.0%}, {found.hi:.0%}]"


def as_rows(name: Sequence[object], found: Estimate) -> tuple[object, ...]:
    """Some names and an estimate as one row of a table: names, value, lo, hi, n."""
    return (*name, found.value, found.lo, found.hi, found.n)
