"""The angle gap between pairs of harmless prompts and pairs of a harmless with a harmful one.

Source: Security Tensors (released code of ``listen0425/Security-Tensors``, after Li et al. 2024, arXiv 2408.17003):
cosines of last-token states over r random pairs, normal-normal (N-N) and normal-malicious (N-M); the safety layers are
where the angles arccos(mean cosine) of the two part, |angle N-N - angle N-M|.

Here: gap_l = mean angle over N-M pairs - mean angle over N-N pairs, in degrees, in [-180, 180]; 0 where a harmful
prompt is as far from a harmless one as another harmless one is. The angle of a zero vector with anything is 90.

Where it fails: raw cosines at the last token are 0.83 to 1.00 for unrelated harmless prompts, for what all states
share makes up most of their norm; raw angles measure how kinds lie to that, and a harmful kind that lies further out
the same way gives a negative gap. Taking the mean of the harmless states off (``about="harmless"``) takes the floor to
90 degrees and the signal with it: a harmless state is then as often on one side as on the other, so its angle with
*anything* is 90 on average. ``about="middle"`` measures angles about the point midway between the two means, where
harmless states lie on one side and harmful ones on the other; use that one. All see any difference of topic or form as
well as refusal.

Departures: mean of angles, not angle of the mean; signed, since a magnitude has no null; no pair is of one group, for
twins share what they are about; pairs are the same in every resample, weighted by how often both their groups are
drawn, which makes intervals rather wide than narrow; angles by atan2, for arccos is blind near 0 degrees.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve, Kind
from interp.axes import States
from interp.errors import UsageError
from interp.stats import bootstrap_mean, weighted_mean

PAIRS = 500
ROUNDING = 1e-9
"""Degrees by which means of equal angles differ."""
About = Literal["origin", "harmless", "middle"]


def pair_angle(
    states: States,
    layers: tuple[int, ...],
    contrast: Contrast,
    *,
    pairs: int | None = PAIRS,
    about: About = "origin",
) -> Curve:
    """The mean angle of pairs across kinds minus that of pairs within the other (harmless) kind.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds; its seed draws the pairs.
        pairs: how many of either sort are drawn, with repetition; None for all there are.
        about: where angles are measured from: the origin, as published; the mean of the harmless states; or the point
            midway between the means of the two kinds. The groups of a pair are left out of its means, in which their
            own weight would turn the angle.

    Returns:
        A curve in degrees with null 0, and the two mean angles.

    Raises:
        UsageError: when the prompts are of too few groups for any pair, or for means without the pair's own.
        NonFinite: for a state that is NaN or infinite.
    """
    within, across = _draw(contrast, pairs)
    angles = [np.empty((len(p), len(layers))) for p in (within, across)]
    rows = torch.from_numpy(np.flatnonzero(contrast.kept))
    for i, layer in enumerate(contrast.by_layer(states)):
        seen = states[rows, i].double() if about == "origin" else layer
        for angle, drawn in zip(angles, (within, across), strict=True):
            angle[:, i] = _angles(*_vectors(seen, contrast, drawn, about)).numpy()
    weights = [contrast.weights[:, p[:, 0]] * contrast.weights[:, p[:, 1]] for p in (within, across)]
    near, far = (weighted_mean(a, w) for a, w in zip(angles, weights, strict=True))
    first, other = contrast.names
    kinds = tuple(
        Kind(name, *bootstrap_mean(a, w), len(a))
        for name, a, w in zip((f"{other} - {other}", f"{other} - {first}"), angles, weights, strict=True)
    )
    name = "pair_angle" if about == "origin" else f"pair_angle_{about}"
    gaps = np.concatenate([(angles[1].mean(0) - angles[0].mean(0))[None], far - near])
    gaps[np.abs(gaps) < ROUNDING] = 0.0
    return Curve(name, layers, gaps[0], gaps[1:], "degrees", len(contrast), contrast.name, kinds=kinds)


def _vectors(
    seen: Float[Tensor, "row d_model"], contrast: Contrast, pairs: Int[ndarray, "pair 2"], about: About
) -> tuple[Float[Tensor, "pair d_model"], Float[Tensor, "pair d_model"]]:
    """The two states of every pair, about the origin or a mean of rows that are not of their groups."""
    left, right = seen[torch.from_numpy(pairs[:, 0])], seen[torch.from_numpy(pairs[:, 1])]
    if about == "origin":
        return left, right
    first = torch.from_numpy(contrast.first)
    mean = _mean_of_others(seen, contrast, pairs, ~first)
    if about == "middle":
        mean = (mean + _mean_of_others(seen, contrast, pairs, first)) / 2
    return left - mean, right - mean


def _mean_of_others(
    seen: Float[Tensor, "row d_model"], contrast: Contrast, pairs: Int[ndarray, "pair 2"], kind: Bool[Tensor, " row"]
) -> Float[Tensor, "pair d_model"]:
    """For every pair the mean of the rows of a kind that are of neither of its groups."""
    codes, counted = torch.from_numpy(contrast.codes), kind.to(seen.dtype)
    sums = torch.zeros(int(codes.max()) + 1, seen.shape[1], dtype=seen.dtype)
    sums.index_add_(0, codes, seen * counted[:, None])
    counts = torch.zeros(len(sums), dtype=seen.dtype).index_add_(0, codes, counted)
    own = codes[torch.from_numpy(pairs)]
    left = counts.sum() - counts[own].sum(1)
    if not (left > 0).all():
        raise UsageError("too few groups: a pair of two leaves no other to take a mean of; give more groups.")
    return (sums.sum(0) - sums[own].sum(1)) / left[:, None]


def _angles(left: Float[Tensor, "pair d_model"], right: Float[Tensor, "pair d_model"]) -> Float[Tensor, " pair"]:
    """Degrees between vectors (Kahan 2006): exact near 0 and 180, where arccos is not; 90 with a zero vector."""
    a, b = (torch.nn.functional.normalize(v, dim=-1, eps=1e-300) for v in (left, right))
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))).where(
        (left.norm(dim=-1) > 0) & (right.norm(dim=-1) > 0), torch.tensor(90.0, dtype=left.dtype)
    )


def _draw(contrast: Contrast, pairs: int | None) -> tuple[Int[ndarray, "near 2"], Int[ndarray, "far 2"]]:
    """Pairs of two harmless rows, and of a harmless with a harmful one; never of one group."""
    rng, codes = np.random.default_rng(contrast.seed), contrast.codes
    # Rows in the order of their groups' names, so that the draw does not depend on the order of the prompts.
    order = np.argsort(codes, kind="stable")
    other, first = order[~contrast.first[order]], order[contrast.first[order]]
    found = []
    for partners in (other, first):
        apart = codes[other][:, None] != codes[partners][None]
        if partners is other:
            apart = np.triu(apart)
        places = np.flatnonzero(apart)
        if not len(places):
            raise UsageError(
                f"{len(other)} {contrast.names[1]} prompts make no pair of two groups; angles need several groups."
            )
        taken = places if pairs is None else rng.choice(places, pairs)
        found.append(np.stack([other[taken // len(partners)], partners[taken % len(partners)]], axis=1))
    return found[0], found[1]
