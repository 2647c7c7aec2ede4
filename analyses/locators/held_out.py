"""Separation along directions that were fitted without the groups they are tested on."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve, Kind
from interp.axes import States
from interp.errors import UsageError
from interp.stats import percentile_interval

Products = Callable[[Tensor, ndarray, ndarray], ndarray]
"""(row, trained) inner products of all states with those a direction is fitted to, in a metric fitted to the latter;
takes the (row, d) centred states of a layer, which rows are trained on, and which are of the first kind."""


def held_out_curve(
    locator: str,
    states: States,
    layers: tuple[int, ...],
    contrast: Contrast,
    products: Products,
    *,
    splits: int,
    unit: str,
) -> Curve:
    """Cohen's d along the difference of means of the other half of the groups.

    Groups are halved at random, as evenly over the kinds as they allow; each half is projected on the other's
    direction, the gap between its means is divided by its pooled standard deviation within kinds, and both halves of
    all splits are averaged. In every resample the means, and so the directions, are fitted again: the two halves test
    the same pair of directions on each other, and with directions held fixed an interval would take them for
    independent. A direction enters by its inner products alone, so a resample costs one product of small matrices.

    Args:
        locator: name of the curve.
        states: residual states of every prompt.
        layers: their layer numbers.
        contrast: the two kinds; its seed draws the halves.
        products: the metric in which directions are differences of means; it is fitted once, not in every resample.
        splits: how many halvings.
        unit: of the curve.

    Returns:
        A curve with null 0; each kind alone is 0 midway between the means fitted. 0 where states do not differ, NaN
        where they differ between the kinds and not within.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    halves = _halves(contrast, splits)
    weights = np.concatenate([np.ones((1, len(contrast))), contrast.weights])
    found = np.empty((2, len(weights), states.shape[1]))
    for i, layer in enumerate(contrast.by_layer(states)):
        tested = [
            _tested(products(layer, trained, contrast.first), weights, contrast.first, trained)
            for trained in (*halves, *~halves)
        ]
        found[:, :, i] = np.mean(tested, axis=0)
    kinds = tuple(
        Kind(name, one[0], *percentile_interval(one[1:]), int(those.sum()))
        for name, one, those in zip(contrast.names, found, (contrast.first, ~contrast.first), strict=True)
    )
    gap = found[0] - found[1]
    return Curve(locator, layers, gap[0], gap[1:], unit, len(contrast), contrast.name, kinds=kinds)


def _tested(
    products: Float[ndarray, "row trained"],
    weights: Float[ndarray, "resample row"],
    first: Bool[ndarray, " row"],
    trained: Bool[ndarray, " row"],
) -> Float[ndarray, "2 resample"]:
    """The mean of each kind among rows not trained on, from midway between the means trained on, in spreads."""
    yes, no = _shares(weights, trained & first), _shares(weights, trained & ~first)
    along = (yes - no)[:, trained] @ products.T
    middle = (along * (yes + no)).sum(1) / 2
    held = weights * ~trained
    means = [(along * _shares(weights, ~trained & kind)).sum(1) for kind in (first, ~first)]
    away = along - np.where(first, means[0][:, None], means[1][:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((held * away**2).sum(1) / held.sum(1))
        found = (np.stack(means) - middle) / spread
    # Without any spread a gap is infinitely many of them, and no gap is none.
    found = np.where(np.isinf(found), np.nan, found)
    return np.where((along == 0).all(1), 0.0, found)


def _shares(weights: Float[ndarray, "resample row"], those: Bool[ndarray, " row"]) -> Float[ndarray, "resample row"]:
    """Weights of some rows as shares of one; NaN in a resample that draws none of them."""
    drawn = weights * those
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(drawn / drawn.sum(1, keepdims=True))


def _halves(contrast: Contrast, splits: int) -> Bool[ndarray, "split row"]:
    """Random halves of the groups: those alike in what kinds they hold are dealt out in turn."""
    codes, rng = contrast.codes, np.random.default_rng(contrast.seed)
    sizes = np.bincount(codes)
    share = np.bincount(codes, weights=contrast.first) / sizes
    halves = np.stack([_dealt(share, rng)[codes] for _ in range(splits)])
    for name, kind in zip(contrast.names, (contrast.first, ~contrast.first), strict=True):
        if not (halves[:, kind].any(1) & ~halves[:, kind].all(1)).all():
            raise UsageError(
                f"{len(np.unique(codes[kind]))} groups with {name} prompts can not be halved beside the others; "
                "directions are tested on groups they were not fitted to, so both kinds need several groups."
            )
    return halves


def _dealt(share: Float[ndarray, " group"], rng: np.random.Generator) -> Bool[ndarray, " group"]:
    order: Int[ndarray, " group"] = rng.permutation(len(share))
    order = order[np.argsort(share[order], kind="stable")]
    dealt = np.zeros(len(share), dtype=bool)
    dealt[order[int(rng.integers(2)) :: 2]] = True
    return dealt
