"""Probes in closed form: difference of means and linear discriminant, for all sites and columns at once.

Called like `probes.logistic.fit_logistic`, so that they can be compared on the same states, folds and weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**25
"""Numbers held at once by the covariances of a block of sites, and by its weighted states."""
TINY = 1e-30
"""Divides what is 0 anyway."""


def fit_mean_difference(
    states: Float[Tensor, "site row d"],
    targets: Float[Tensor, "#site row #column"],
    weights: Float[Tensor, "#site row #column"],
) -> tuple[Float[Tensor, "site d column"], Float[Tensor, "site column"]]:
    """The mean of the target class minus the mean of the other, with 0 midway between the two.

    Args:
        states: one site is a layer at a position.
        targets: 1 for the target class, 0 for the other; a soft label counts in both, in parts.
        weights: how much every row counts, at least 0; 0 leaves it out.

    Returns:
        Directions v in units of the states and biases b = -(m1 + m0) v / 2; both 0 for a column in which a class has
        no weight.
    """
    first, second, _, _ = _class_means(states, targets, weights)
    directions = first - second
    return directions, -((first + second) * directions).sum(1) / 2


def fit_discriminant(
    states: Float[Tensor, "site row d"],
    targets: Float[Tensor, "#site row #column"],
    weights: Float[Tensor, "#site row #column"],
    *,
    shrinkage: float | None = None,
) -> tuple[Float[Tensor, "site d column"], Float[Tensor, "site column"]]:
    """Linear discriminants (Fisher 1936) with a shrunken covariance, pooled over both classes.

    v = C^-1 (m1 - m0) and b = -(m1 + m0) v / 2 + log(p1 / p0), the log-odds of two Gaussians of covariance
    C = (1 - s) S + s tr(S) / d I, where S is the weighted covariance within the classes and p their shares of the
    weight.

    Args:
        states: one site is a layer at a position; centred by the caller, which keeps S exact in float32.
        targets: 1 for the target class, 0 for the other; a soft label counts in both, in parts.
        weights: how often every row counts, at least 0; 0 leaves it out.
        shrinkage: s in [0, 1]; None for that of Ledoit and Wolf, by column (see `ledoit_wolf`).

    Returns:
        Directions v and biases b; both 0 for a column in which a class has no weight. Where rows do not vary within
        the classes C is the identity. To the diagonal of every C are added ten units of rounding of the mean squared
        norm of the rows, which decides where S is singular, as it is for fewer rows than coordinates.

    Raises:
        ValueError: for a shrinkage outside [0, 1].
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage {shrinkage} is outside [0, 1]; give None for Ledoit and Wolf's.")
    sites, rows, width = states.shape
    columns = max(targets.shape[-1], weights.shape[-1])
    block = max(1, BLOCK // (width * max(columns * width, rows)))
    parts = []
    for start in range(0, sites, block):
        here = slice(start, start + block)
        own_targets, own_weights = (t[here] if len(t) > 1 else t for t in (targets, weights))
        parts.append(_discriminants(states[here], own_targets, own_weights, shrinkage))
    directions, biases = zip(*parts, strict=True)
    return torch.cat(directions), torch.cat(biases)


def _discriminants(states: Tensor, targets: Tensor, weights: Tensor, shrinkage: float | None) -> tuple[Tensor, Tensor]:
    first, second, share, total = _class_means(states, targets, weights)
    spread = _covariance(states, weights, first, second, share, total)
    width = states.shape[-1]
    level = spread.diagonal(dim1=-2, dim2=-1).mean(-1)
    if shrinkage is None:
        s = ledoit_wolf(states, targets, weights, spread, first, second)
    else:
        s = torch.full_like(level, shrinkage)
    power = (weights * states.square().sum(-1, keepdim=True)).sum(1) / total.clamp(min=TINY)
    rounding = 10 * torch.finfo(states.dtype).eps * power
    identity = torch.eye(width, dtype=states.dtype, device=states.device)
    shrunken = (1 - s)[..., None, None] * spread + (s * level + rounding)[..., None, None] * identity
    shrunken = torch.where((width * level <= rounding)[..., None, None], identity, shrunken)
    difference = (first - second).mT[..., None]
    directions = torch.cholesky_solve(difference, torch.linalg.cholesky(shrunken))[..., 0].mT
    middle = ((first + second) * directions).sum(1) / 2
    odds = torch.log(share / (1 - share))
    return directions, torch.where(odds.isfinite(), odds - middle, torch.zeros_like(middle))


def _class_means(states: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means (site, d, column) of both classes, the weight share (site, column) of the first, and the total weight.

    Where a class has no weight both means are that of the other, and 0 where nothing has.
    """
    hits, misses = weights * targets, weights * (1 - targets)
    both = torch.cat([hits, misses], dim=-1).expand(len(states), -1, -1)
    counts = both.sum(1)
    found = torch.bmm(states.mT, both) / counts.clamp(min=TINY).unsqueeze(1)
    (yes, no), (first, second) = counts.chunk(2, dim=-1), found.chunk(2, dim=-1)
    total = yes + no
    first, second = (
        torch.where((yes > 0).unsqueeze(1), first, second),
        torch.where((no > 0).unsqueeze(1), second, first),
    )
    return first, second, yes / total.clamp(min=TINY), total


def _covariance(
    states: Tensor, weights: Tensor, first: Tensor, second: Tensor, share: Tensor, total: Tensor
) -> Float[Tensor, "site column d d"]:
    """The weighted covariance within the classes."""
    spread = []
    for k in range(share.shape[-1]):
        weight = weights[..., k if weights.shape[-1] > 1 else 0, None]
        moments = torch.bmm((weight * states).mT, states) / total[:, k, None, None].clamp(min=TINY)
        means = torch.stack([first[..., k], second[..., k]], dim=-1)
        shares = torch.stack([share[:, k], 1 - share[:, k]], dim=-1).unsqueeze(1)
        spread.append(moments - torch.bmm(means * shares, means.mT))
    return torch.stack(spread, dim=1)


def ledoit_wolf(
    states: Float[Tensor, "site row d"],
    targets: Float[Tensor, "#site row #column"],
    weights: Float[Tensor, "#site row #column"],
    covariance: Float[Tensor, "site column d d"],
    first: Float[Tensor, "site d column"],
    second: Float[Tensor, "site d column"],
) -> Float[Tensor, "site column"]:
    """The shrinkage that brings a covariance closest to the truth (Ledoit & Wolf 2004, lemma 3.1 to theorem 3.2).

    Args:
        states: one site is a layer at a position.
        targets: 1 for the target class, 0 for the other.
        weights: how often every row counts; a weight of 2 is the same as two rows.
        covariance: S, within the classes.
        first: the mean of the target class.
        second: the mean of the other.

    Returns:
        In [0, 1]; 0 for one coordinate, or where nothing varies.
    """
    width = states.shape[-1]
    total = weights.expand(-1, -1, covariance.shape[1]).sum(1)
    norms = states.square().sum(-1, keepdim=True)
    fourth = torch.zeros_like(covariance[..., 0, 0])
    for mean, counted in ((first, weights * targets), (second, weights * (1 - targets))):
        distance = norms - 2 * torch.bmm(states, mean) + mean.square().sum(1, keepdim=True)
        fourth += (counted * distance.square()).sum(1)
    level = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    size = covariance.square().sum((-2, -1))
    away = size / width - level.square()
    error = (fourth / total.clamp(min=TINY) - size) / (width * total.clamp(min=TINY))
    return torch.where(away > 0, error / away, torch.zeros_like(away)).clamp(0, 1)
