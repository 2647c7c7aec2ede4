"""How well scores tell two classes apart, with every resample of a group bootstrap computed at once.

All take ``weights`` (resample, row), how often a row is drawn in each resample (`interp.stats.group_weights`), and
return one number per resample; without weights it is a single number, the plain metric.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from interp.stats import LEVEL, Estimate, group_weights

BINS = 10


def auroc(
    scores: Float[ndarray, " row"],
    target: Bool[ndarray, " row"],
    weights: Float[ndarray, "resample row"] | None = None,
    folds: Int[ndarray, " row"] | None = None,
) -> Float[ndarray, " resample"]:
    """The probability that a row of the target class scores above one of the other class; ties count half.

    Args:
        scores: any real numbers; only their order matters.
        target: which rows are of the target class.
        weights: draws per resample.
        folds: compare rows of the same fold only, for scores of models fitted per fold, which share no scale.

    Returns:
        In [0, 1]; 0.5 is chance; NaN where no fold holds both classes.
    """
    order = np.lexsort((scores,) if folds is None else (scores, folds))
    fold = np.zeros(len(scores), dtype=int) if folds is None else folds[order]
    drawn = _drawn(weights, len(scores))[:, order]
    yes, no = drawn * target[order], drawn * ~target[order]
    below = np.concatenate([np.zeros((len(drawn), 1)), no.cumsum(1)], axis=1)
    # A run of equal scores of one fold is a tie: half of the others in it count as below.
    first, last = _runs(fold, scores[order])
    start, end = _runs(fold)
    concordant = (yes * ((below[:, first] + below[:, last]) / 2 - below[:, start])).sum(1)
    pairs = (yes * (below[:, end] - below[:, start])).sum(1)
    return _ratio(concordant, pairs)


def average_precision(
    scores: Float[ndarray, " row"],
    target: Bool[ndarray, " row"],
    weights: Float[ndarray, "resample row"] | None = None,
) -> Float[ndarray, " resample"]:
    """The area under the precision-recall curve as the mean precision at every row of the target class.

    Returns:
        In (0, 1]; chance is the share of the target class; NaN where it is not drawn.
    """
    order = np.argsort(-scores, kind="stable")
    drawn = _drawn(weights, len(scores))[:, order]
    yes = drawn * target[order]
    _, last = _runs(scores[order])
    hits, taken = yes.cumsum(1)[:, last - 1], drawn.cumsum(1)[:, last - 1]
    return _ratio((yes * _ratio(hits, taken, empty=0.0)).sum(1), yes.sum(1))


def false_positive_rate(
    scores: Float[ndarray, " row"],
    target: Bool[ndarray, " row"],
    weights: Float[ndarray, "resample row"] | None = None,
    *,
    recall: float = 0.95,
) -> Float[ndarray, " resample"]:
    """The share of other rows at or above the highest threshold that still finds ``recall`` of the target class.

    Returns:
        In [0, 1]; chance is about ``recall``; NaN where a class is not drawn.
    """
    order = np.argsort(-scores, kind="stable")
    drawn = _drawn(weights, len(scores))[:, order]
    yes, no = drawn * target[order], drawn * ~target[order]
    _, last = _runs(scores[order])
    found, alarms = yes.cumsum(1)[:, last - 1], no.cumsum(1)[:, last - 1]
    place = (found >= recall * yes.sum(1, keepdims=True) - 1e-9).argmax(1)
    rate = _ratio(np.take_along_axis(alarms, place[:, None], 1)[:, 0], no.sum(1))
    return np.where(yes.sum(1) > 0, rate, np.nan)


def calibration_error(
    probabilities: Float[ndarray, " row"],
    target: Bool[ndarray, " row"],
    weights: Float[ndarray, "resample row"] | None = None,
) -> Float[ndarray, " resample"]:
    """The expected calibration error over ten equal bins of probability (Guo et al. 2017, equation 3).

    Returns:
        In [0, 1], 0 when in every bin the mean probability equals the share of the target class. It is biased upwards
        for few rows.
    """
    drawn = _drawn(weights, len(probabilities))
    bins = np.clip((probabilities * BINS).astype(int), 0, BINS - 1)
    gap = np.zeros(len(drawn))
    for k in range(BINS):
        here = bins == k
        gap += np.abs((drawn[:, here] * (probabilities[here] - target[here])).sum(1))
    return _ratio(gap, drawn.sum(1))


def bootstrapped(drawn: Float[ndarray, " resample"], value: float, n: int, level: float = LEVEL) -> Estimate:
    """A value with the percentile interval of its resamples; resamples that are NaN are left out."""
    kept = drawn[np.isfinite(drawn)]
    if not len(kept):
        return Estimate(value, float("nan"), float("nan"), n)
    lo, hi = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(lo), float(hi), n)


def auroc_estimate(
    scores: Float[ndarray, " row"],
    target: Bool[ndarray, " row"],
    groups: list[str] | tuple[str, ...],
    folds: Int[ndarray, " row"] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """The AUROC with its bootstrap interval over groups."""
    drawn = auroc(scores, target, group_weights(groups, seed=seed), folds)
    return bootstrapped(drawn, float(auroc(scores, target, folds=folds)[0]), len(scores))


def _drawn(weights: Float[ndarray, "resample row"] | None, rows: int) -> Float[ndarray, "resample row"]:
    return np.ones((1, rows)) if weights is None else weights


def _runs(*keys: ndarray) -> tuple[Int[ndarray, " row"], Int[ndarray, " row"]]:
    """For every row of sorted keys: where its run of equal keys begins, and where it ends (exclusive)."""
    rows = len(keys[0])
    fresh = np.ones(rows, dtype=bool)
    if rows > 1:
        fresh[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(fresh)
    run = fresh.cumsum() - 1
    return starts[run], np.append(starts[1:], rows)[run]


def _ratio(above: ndarray, below: ndarray, *, empty: float = float("nan")) -> ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: ndarray = np.where(below > 0, above / below, empty)
    return found
