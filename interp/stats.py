"""Every interval and every permutation of the product comes from here.

Resampling is by group (the two prompts of a twin stay together), with a seed, in float64.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

LEVEL = 0.95
RESAMPLES = 1000
PERMUTATIONS = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval and its n."""

    value: float
    lo: float
    hi: float
    n: int


def wilson(successes: float | int, n: int, level: float = LEVEL) -> Estimate:
    """A proportion with its Wilson score interval (Wilson 1927).

    Args:
        successes: how many, 0 to n; a mean of shares times n where each counts in part.
        n: of how many.
        level: coverage, 0.95 by default.

    Returns:
        The proportion in [0, 1]; value, lo and hi are NaN, 0 and 1 when n is 0.
    """
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n)


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent proportions with its interval (Newcombe 1998, method 10).

    Args:
        first: a proportion with its Wilson interval, as of `wilson`.
        second: what is taken off, too.

    Returns:
        The difference in [-1, 1]; n is that of both together, and the bounds are -1 and 1 at the widest.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.lo, second.hi - second.value)
    above = math.hypot(first.hi - first.value, second.value - second.lo)
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above), first.n + second.n)


def group_codes(groups: Sequence[str]) -> Int[ndarray, " prompt"]:
    """Numbers 0, 1, ... for group names, in order of first appearance."""
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(g, len(codes)) for g in groups])


def group_weights(
    groups: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[ndarray, "resample prompt"]:
    """How often every prompt is drawn in each bootstrap resample of the groups; whole groups are drawn together."""
    codes = group_codes(groups)
    n = int(codes.max()) + 1
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return draws[:, codes].astype(np.float64)


def bootstrap_mean(
    values: Float[ndarray, "prompt *rest"], weights: Float[ndarray, "resample prompt"], level: float = LEVEL
) -> tuple[Float[ndarray, "*rest"], Float[ndarray, "*rest"], Float[ndarray, "*rest"]]:
    """The mean over prompts and its percentile interval.

    Args:
        values: (prompt, ...) what is averaged.
        weights: (resample, prompt) from `group_weights`; a resample that draws no prompt is left out.
        level: coverage.

    Returns:
        mean, lo and hi, each of shape (...).
    """
    values = np.asarray(values, dtype=np.float64)
    return (np.asarray(values.mean(0)), *percentile_interval(weighted_mean(values, weights), level))


def bootstrap_difference(
    values: Float[ndarray, "prompt *rest"],
    first: Bool[ndarray, " prompt"],
    weights: Float[ndarray, "resample prompt"],
    level: float = LEVEL,
) -> tuple[Float[ndarray, "*rest"], Float[ndarray, "*rest"], Float[ndarray, "*rest"]]:
    """The mean over ``first`` minus the mean over the others, and its percentile interval.

    Both sides are drawn in the same resample, so twins stay paired.
    """
    values = np.asarray(values, dtype=np.float64)
    value = np.asarray(values[first].mean(0) - values[~first].mean(0))
    drawn = weighted_mean(values[first], weights[:, first]) - weighted_mean(values[~first], weights[:, ~first])
    return (value, *percentile_interval(drawn, level))


def weighted_mean(
    values: Float[ndarray, "prompt *rest"], weights: Float[ndarray, "resample prompt"]
) -> Float[ndarray, "resample *rest"]:
    """The mean of every resample; NaN for one that draws no prompt."""
    total = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = weights / total[:, None]
    flat: ndarray = share @ values.reshape(len(values), -1)
    return flat.reshape(len(weights), *values.shape[1:])


def max_permutation(
    values: Float[ndarray, "prompt layer"],
    first: Bool[ndarray, " prompt"],
    groups: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """The p-value of the largest absolute mean difference over layers, against shuffled labels.

    Labels are exchanged within groups where a group holds both kinds (twins), else over all prompts. The maximum over
    layers is taken in every permutation too, so choosing the best layer is paid for (Westfall & Young 1993).

    Returns:
        (1 + permutations at least as extreme) / (1 + permutations), in (0, 1].
    """
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    codes = group_codes(groups)
    observed = _max_difference(values, first)
    hits = sum(_max_difference(values, shuffled_labels(first, codes, rng)) >= observed for _ in range(permutations))
    return (1 + hits) / (1 + permutations)


def shuffled_labels(
    first: Bool[ndarray, " prompt"], codes: Int[ndarray, " prompt"], rng: np.random.Generator
) -> Bool[ndarray, " prompt"]:
    """A permutation of labels: within groups where a group holds both kinds, else over all prompts."""
    sizes = np.bincount(codes)
    chosen = np.bincount(codes, weights=first)
    if not ((chosen > 0) & (chosen < sizes)).any():
        return rng.permutation(first)
    # Sorting by (group, random) and by (group, place) lines up each group with a shuffle of itself.
    shuffled = np.empty_like(first)
    shuffled[np.lexsort((np.arange(len(codes)), codes))] = first[np.lexsort((rng.random(len(codes)), codes))]
    return shuffled


def _max_difference(values: Float[ndarray, "prompt layer"], first: Bool[ndarray, " prompt"]) -> float:
    return float(np.abs(values[first].mean(0) - values[~first].mean(0)).max())


def percentile_interval(
    drawn: Float[ndarray, "resample *rest"], level: float = LEVEL
) -> tuple[Float[ndarray, "*rest"], Float[ndarray, "*rest"]]:
    """The percentile interval of every number by its resamples; NaN resamples are left out, NaN where all are."""
    tail = 100 * (1 - level) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        lo, hi = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
    return np.asarray(lo), np.asarray(hi)


def simultaneous_interval(
    value: Float[ndarray, " layer"], drawn: Float[ndarray, "resample layer"], level: float = LEVEL
) -> tuple[Float[ndarray, " layer"], Float[ndarray, " layer"]]:
    """Intervals that hold at all layers at once, for a layer chosen by looking (a sup-t band).

    Args:
        value: the curve.
        drawn: its resamples; those with a NaN are left out, layers that are NaN throughout too.
        level: how often the true curve lies inside at every layer.

    Returns:
        value -/+ c standard deviations of its resamples, where c is the ``level`` quantile over resamples of the
        largest distance from ``value`` in standard deviations. Symmetric, so an end may lie outside the range of the
        measure; NaN with no resample.
    """
    some = ~np.isnan(drawn).all(0) & ~np.isnan(value)
    kept = drawn[:, some]
    kept = kept[~np.isnan(kept).any(1)]
    lo, hi = np.full_like(value, np.nan), np.full_like(value, np.nan)
    if kept.size:
        spread = kept.std(0)
        distance = np.abs(kept - value[some]) / np.where(spread > 0, spread, np.inf)
        reach = float(np.quantile(distance.max(1), level))
        lo[some], hi[some] = value[some] - reach * spread, value[some] + reach * spread
    return lo, hi


def layer_interval(drawn: Float[ndarray, " resample"], level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of layer numbers, which are never averaged.

    inf is "never" and later than every layer; NaN resamples are left out, and with none left both ends are NaN.
    """
    kept = np.sort(drawn[~np.isnan(drawn)])
    if not len(kept):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    lo, hi = (float(np.quantile(kept, q, method="nearest")) for q in (tail, 1 - tail))
    return lo, hi


def censored_median(layers: Float[ndarray, " prompt"]) -> float:
    """The median of first-firing layers in which "never" is +inf: inf when half or more never fire, NaN if empty."""
    return float(np.quantile(layers, 0.5, method="higher")) if len(layers) else float("nan")


def bootstrap_censored_median(
    layers: Float[ndarray, " prompt"], weights: Float[ndarray, "resample prompt"], level: float = LEVEL
) -> Estimate:
    """The censored median with its percentile interval over resampled groups; bounds may be inf."""
    order = np.argsort(layers, kind="stable")
    cumulative = weights[:, order].cumsum(1)
    totals = cumulative[:, -1]
    drawn_any = totals > 0
    place = (cumulative[drawn_any] > totals[drawn_any, None] / 2).argmax(1)
    lo, hi = layer_interval(layers[order][place], level)
    return Estimate(censored_median(layers), lo, hi, len(layers))


def ratio_of_resamples(
    top: Float[ndarray, "*rest"],
    bottom: Float[ndarray, "*rest"],
    drawn_top: Float[ndarray, "resample *rest"],
    drawn_bottom: Float[ndarray, "resample *rest"],
    level: float = LEVEL,
) -> tuple[Float[ndarray, "*rest"], Float[ndarray, "resample *rest"]]:
    """A ratio of two quantities that were resampled together, and its resamples for `percentile_interval`.

    Args:
        top: what is divided.
        bottom: what it is divided by.
        drawn_top: ``top`` in every resample.
        drawn_bottom: ``bottom`` in the same resamples.
        level: coverage of the interval that ``bottom`` has to keep clear of 0.

    Returns:
        ratio and its resamples. All are NaN where the interval of ``bottom`` holds 0: a share of nothing is no
        number, and would come out with either sign. Resamples in which ``bottom`` has not the sign of its value are
        NaN too; there at most (1 - level) / 2 of them are.
    """
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    lo, hi = percentile_interval(drawn_bottom, level)
    sound = (lo > 0) | (hi < 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(sound, top / bottom, np.nan)
        drawn = np.where(sound & (np.sign(drawn_bottom) == np.sign(bottom)), drawn_top / drawn_bottom, np.nan)
    return np.asarray(value), np.asarray(drawn)
