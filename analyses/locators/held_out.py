"""Scores along directions that were fitted without the groups they score."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from interp.axes import States
from interp.errors import UsageError

Fit = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Fits (site, d, column) directions to states, targets and weights, as those of `probes.linear` do."""


def held_out_scores(states: States, contrast: Contrast, fit: Fit, *, splits: int) -> Float[ndarray, "prompt layer"]:
    """Projections on directions fitted to the other half of the groups, in units of the spread within kinds.

    Groups are halved at random, as evenly over the kinds as they allow, and each half is scored by the other's
    direction. A score is 0 midway between the two means it was fitted to and 1 where it is one pooled standard
    deviation (of the half that is scored) further towards the first kind; scores of several splits are averaged. So
    the mean of the first kind minus that of the other is a held-out Cohen's d.

    Args:
        states: residual states of every prompt.
        contrast: the two kinds; its seed draws the halves.
        fit: how directions are found, in float64.
        splits: how many halvings.

    Returns:
        NaN for prompts outside the contrast, and where the scored half does not vary within kinds yet differs between
        them; 0 where states do not differ at all.

    Raises:
        UsageError: when a kind has prompts of one group only.
    """
    halves = _halves(contrast, splits)
    first = torch.from_numpy(contrast.first)
    target, scored = first.double()[None, :, None], torch.from_numpy(np.concatenate([halves, ~halves])).T
    found = np.full((len(contrast.kept), states.shape[1]), np.nan)
    for i, layer in enumerate(contrast.by_layer(states)):
        directions, _ = fit(layer[None], target, (~scored).double()[None])
        along = layer @ directions[0]
        middle = (_means(along, ~scored & first[:, None]) + _means(along, ~scored & ~first[:, None])) / 2
        found[contrast.kept, i] = _standardised(along - middle, scored, first).numpy()
    return found


def _standardised(along: Float[Tensor, "row column"], scored: Tensor, first: Tensor) -> Float[Tensor, " row"]:
    """Every row's mean over the columns that score it, each divided by its spread within kinds."""
    squares = torch.zeros(along.shape[1], dtype=along.dtype)
    for kind in (first, ~first):
        those = scored & kind[:, None]
        squares += ((along - _means(along, those)).square() * those).sum(0)
    spread = (squares / scored.sum(0)).sqrt()
    scores = torch.where((spread == 0) & (along == 0), 0.0, along / spread)
    # Infinite where kinds differ without any spread of their own: no number of spreads.
    scores = torch.where(scores.isinf(), torch.nan, scores)
    return torch.where(scored, scores, 0.0).sum(1) / scored.sum(1)


def _means(along: Float[Tensor, "row column"], those: Tensor) -> Float[Tensor, " column"]:
    return (along * those).sum(0) / those.sum(0)


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
