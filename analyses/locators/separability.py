"""How far apart the states of two kinds are as distributions: three measures, each a curve of its own.

Source: the layer selection of RCS / KCD (released code of ``sarendis56/Jailbreak_Detection_RCS``): MMD, sliced
Wasserstein distance and the margin of a linear SVM, layer by layer, all fitted and read on the same prompts. With more
coordinates than prompts a fitted margin is wide for any labels, a Wasserstein distance is positive for any samples,
and both grow with the size of the states, which grows with the layer. So here everything is in units of the spread
within the layer, is 0 on average where nothing separates, and scores only groups it was not fitted to.

Where they fail: all see any difference between the kinds, of length, form or topic, as well as refusal. Give them
twins.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.held_out import held_out_scores
from analyses.locators.mean_difference import SPLITS
from interp.axes import States
from interp.errors import UsageError
from interp.stats import shuffled_labels
from probes.linear import fit_discriminant, fit_mean_difference

SHUFFLES = 20
MARGIN_SPLITS = 2
"""Discriminants take a covariance per layer and half, so fewer halvings are averaged."""


def mmd(states: States, layers: tuple[int, ...], contrast: Contrast) -> Curve:
    """The squared maximum mean discrepancy, unbiased (Gretton et al. 2012, equation 3).

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), k(a, b) = exp(-|a - b|^2 / (2 s^2)), s the median distance
    of all pairs at the layer. Means are over pairs of different groups: with twins, which are alike whatever their
    kind, the textbook estimate is below 0 on average; where every prompt is a group of its own it is the textbook's.

    Range: below 2; on average 0 where kinds are alike, and then as often negative. 0 where states do not differ.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds.

    Returns:
        A curve with null 0. Resamples weight the pairs by how often both their groups are drawn; kernels stay.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    apart = contrast.codes[:, None] != contrast.codes[None]
    first = contrast.first
    if not (apart[np.ix_(first, first)].any() and apart[np.ix_(~first, ~first)].any()):
        raise UsageError("MMD compares prompts of different groups; both kinds need several groups.")
    weights = np.concatenate([np.ones((1, len(contrast))), contrast.weights])
    pairs = _sums(apart.astype(np.float64), weights, first)
    found = []
    for layer in contrast.by_layer(states):
        sums = _sums(np.where(apart, _kernel(layer), 0.0), weights, first)
        with np.errstate(invalid="ignore", divide="ignore"):
            within, across = sums[:2] / pairs[:2], sums[2] / pairs[2]
        found.append(within.sum(0) - 2 * across)
    values = np.stack(found, axis=1)
    # A layer of equal states has a kernel of ones throughout, whose means cancel only up to rounding.
    values[np.abs(values) < 1e-12] = 0.0
    return Curve("mmd", layers, values[0], values[1:], "MMD^2", len(contrast), contrast.name)


def wasserstein(
    states: States,
    layers: tuple[int, ...],
    contrast: Contrast,
    *,
    splits: int = SPLITS,
    shuffles: int = SHUFFLES,
) -> Curve:
    """The Wasserstein-1 distance along held-out differences of means, beyond that of shuffled labels.

    W1 = integral |F(t) - G(t)| dt over the distribution functions of the two kinds, of scores in pooled standard
    deviations within kinds (see `held_out_scores`). It is Cohen's d where the kinds differ by a shift, and above that
    where they also differ in shape. Two samples of one distribution are some way apart, so the mean distance over
    shuffled labels is taken off, in every resample that of the same shuffles on the same draws.

    Departure: RCS averages over random directions of the state space, among which a difference along one direction is
    shrunk by the square root of their number; here the direction is fitted to the other groups.

    Range: from slightly below 0; no upper end.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds, each of at least two groups; its seed shuffles too.
        splits: random halvings of the groups.
        shuffles: of the labels.

    Returns:
        A curve with null 0.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    scores = held_out_scores(states, contrast, fit_mean_difference, splits=splits)[contrast.kept]
    rng = np.random.default_rng(contrast.seed)
    labels = [shuffled_labels(contrast.first, contrast.codes, rng) for _ in range(shuffles)]
    weights = np.concatenate([np.ones((1, len(contrast))), contrast.weights])
    distance = _distances(scores, contrast.first, weights)
    chance = np.mean([_distances(scores, shuffled, weights) for shuffled in labels], axis=0)
    beyond = distance - chance
    unit = "standard deviations beyond shuffled labels"
    return Curve("wasserstein", layers, beyond[0], beyond[1:], unit, len(contrast), contrast.name)


def linear_margin(states: States, layers: tuple[int, ...], contrast: Contrast, *, splits: int = MARGIN_SPLITS) -> Curve:
    """The gap between the kinds along a linear discriminant fitted to the other groups.

    Discriminants are those of `probes.linear.fit_discriminant`, shrunk after Ledoit and Wolf; the gap is that of the
    held-out means in pooled standard deviations within kinds, the d' of the discriminant. RCS takes 2 / |w| of an SVM
    on the prompts it was fitted to.

    Range: any real number, 0 where nothing separates; at most the Mahalanobis distance of the kinds.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds, each of at least two groups.
        splits: random halvings of the groups.

    Returns:
        A curve with null 0, and the mean score of each kind alone.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    scores = held_out_scores(states, contrast, fit_discriminant, splits=splits)
    return Curve.of_scores("linear_margin", layers, scores, contrast, unit="held-out d' of a discriminant")


def _kernel(layer: Float[Tensor, "row d_model"]) -> Float[ndarray, "row row"]:
    """The Gaussian kernel whose bandwidth is the median distance of all pairs; ones where they are all equal."""
    squared = torch.cdist(layer, layer, compute_mode="use_mm_for_euclid_dist").square().numpy()
    upper = squared[np.triu_indices(len(squared), 1)]
    width = float(np.median(upper))
    # More than half of the pairs are equal: the mean still tells the others apart.
    width = width if width > 0 else float(upper.mean())
    return np.asarray(np.exp(-squared / (2 * width))) if width > 0 else np.ones_like(squared)


def _sums(
    matrix: Float[ndarray, "row row"], weights: Float[ndarray, "resample row"], first: Bool[ndarray, " row"]
) -> Float[ndarray, "3 resample"]:
    """Weighted sums over pairs of the first kind, of the other, and across."""
    sides = ((first, first), (~first, ~first), (first, ~first))
    return np.stack([((weights[:, a] @ matrix[np.ix_(a, b)]) * weights[:, b]).sum(1) for a, b in sides])


def _distances(
    scores: Float[ndarray, "row layer"], first: Bool[ndarray, " row"], weights: Float[ndarray, "resample row"]
) -> Float[ndarray, "resample layer"]:
    """Wasserstein-1 distances between two kinds of weighted scores; NaN where a kind is not drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(first, weights, 0) / weights[:, first].sum(1, keepdims=True)
        shares -= np.where(first, 0, weights) / weights[:, ~first].sum(1, keepdims=True)
    found = np.empty((len(weights), scores.shape[1]))
    for i, column in enumerate(scores.T):
        order = np.argsort(column, kind="stable")
        ahead = shares[:, order].cumsum(1)[:, :-1]
        found[:, i] = np.abs(ahead) @ np.diff(column[order])
    return found
