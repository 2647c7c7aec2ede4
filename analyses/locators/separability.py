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
from analyses.locators.held_out import held_out_curve
from interp.axes import States
from interp.errors import UsageError
from interp.stats import shuffled_labels
from probes.linear import ledoit_wolf

SLICES = 16
SHUFFLES = 2
"""Of every slice; enough, for all slices together are averaged."""
SPLITS = 2
"""Discriminants take a covariance per layer and half, so fewer halvings are averaged than of mean differences."""


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


def wasserstein(states: States, layers: tuple[int, ...], contrast: Contrast, *, slices: int = SLICES) -> Curve:
    """The sliced Wasserstein-1 distance beyond that of shuffled labels, in standard deviations within kinds.

    W1 = integral |F(t) - G(t)| dt over the distribution functions of the two kinds along random directions, the same
    at every layer, each divided by the pooled standard deviation within kinds along it, and averaged. Two samples of
    one distribution are some way apart too, so the mean distance of shuffled labels (within twins where there are
    any) is taken off; in every resample that of the same shuffles and draws.

    Where it fails: a difference along one direction of many is shrunk by about the square root of their number.

    Range: from slightly below 0; no upper end. 0 where states do not differ.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds; its seed draws directions and shuffles.
        slices: how many directions; each has shuffles of its own.

    Returns:
        A curve with null 0. Resamples keep directions, shuffles and spreads.

    Raises:
        NonFinite: for a state that is NaN or infinite.
    """
    rng = np.random.default_rng(contrast.seed)
    directions = torch.from_numpy(rng.normal(size=(states.shape[-1], slices)))
    labels = np.stack(
        [[shuffled_labels(contrast.first, contrast.codes, rng) for _ in range(SHUFFLES)] for _ in range(slices)]
    )
    weights = np.concatenate([np.ones((1, len(contrast))), contrast.weights])
    real, shuffled = _contrasts(weights, contrast.first), [[_contrasts(weights, s) for s in one] for one in labels]
    found = np.zeros((len(weights), states.shape[1]))
    for i, layer in enumerate(contrast.by_layer(states)):
        for column, chance in zip(_standardised(layer @ directions, contrast.first).T, shuffled, strict=True):
            beyond = _distances(column, real) - np.mean([_distances(column, c) for c in chance], axis=0)
            found[:, i] += beyond / slices
    unit = "standard deviations beyond shuffled labels"
    return Curve("wasserstein", layers, found[0], found[1:], unit, len(contrast), contrast.name)


def linear_margin(states: States, layers: tuple[int, ...], contrast: Contrast, *, splits: int = SPLITS) -> Curve:
    """The gap between the kinds along a linear discriminant fitted to the other groups.

    The direction is C^-1 (m1 - m0) with C the covariance within kinds, shrunk after Ledoit and Wolf, as in
    `probes.linear.fit_discriminant`; the gap is that of the held-out means in pooled standard deviations within kinds,
    the d' of the discriminant. RCS takes 2 / |w| of an SVM on the prompts it was fitted to.

    Range: any real number, 0 where nothing separates; at most the Mahalanobis distance of the kinds.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds, each of at least two groups.
        splits: random halvings of the groups.

    Returns:
        A curve with null 0, and the mean of each kind alone. Resamples fit the means again, not the covariance.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    unit = "held-out d' of a discriminant"
    return held_out_curve("linear_margin", states, layers, contrast, _whitened, splits=splits, unit=unit)


def _whitened(
    layer: Float[Tensor, "row d_model"], trained: Bool[ndarray, " row"], first: Bool[ndarray, " row"]
) -> Float[ndarray, "row trained"]:
    """Inner products in the inverse of the shrunken covariance within kinds of the rows trained on."""
    rows, target = layer[torch.from_numpy(trained)], torch.from_numpy(first[trained]).double()
    means = torch.stack([rows[target == k].mean(0) for k in (1, 0)])
    within = rows - means[(1 - target).long()]
    covariance = within.T @ within / len(rows)
    columns = (target[None, :, None], torch.ones_like(target)[None, :, None])
    shrunken = ledoit_wolf(rows[None], *columns, covariance[None, None], *(m[None, :, None] for m in means))[0, 0]
    identity = torch.eye(rows.shape[1], dtype=rows.dtype)
    level = covariance.diagonal().mean()
    # Ten units of rounding keep it regular, as in `fit_discriminant`; 1 where nothing varies.
    level = torch.where(level > 0, shrunken * level + 10 * torch.finfo(rows.dtype).eps * level, torch.ones_like(level))
    factor = torch.linalg.cholesky((1 - shrunken) * covariance + level * identity)
    return (layer @ torch.cholesky_solve(rows.T, factor)).numpy()


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


def _contrasts(weights: Float[ndarray, "resample row"], first: Bool[ndarray, " row"]) -> Float[ndarray, "row resample"]:
    """What every row adds to F - G once it is passed; NaN where a kind is not drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(first, weights, 0) / weights[:, first].sum(1, keepdims=True)
        shares -= np.where(first, 0, weights) / weights[:, ~first].sum(1, keepdims=True)
    return np.ascontiguousarray(shares.T)


def _distances(
    scores: Float[ndarray, " row"], contrasts: Float[ndarray, "row resample"]
) -> Float[ndarray, " resample"]:
    """Wasserstein-1 distances between two kinds of weighted scores."""
    order = np.argsort(scores, kind="stable")
    ahead = contrasts[order[:-1]].cumsum(0)
    return np.asarray(np.diff(scores[order]) @ np.abs(ahead))


def _standardised(along: Float[Tensor, "row slice"], first: Bool[ndarray, " row"]) -> Float[ndarray, "row slice"]:
    """Scores in pooled standard deviations within kinds; 0 where there is none."""
    scores = along.numpy()
    means = np.where(first[:, None], scores[first].mean(0), scores[~first].mean(0))
    spread = np.sqrt(((scores - means) ** 2).mean(0))
    return np.asarray(np.divide(scores, spread, out=np.zeros_like(scores), where=spread > 0))
