"""States made ready for a cosine: as they are, centred, without rogue coordinates, or whitened.

A raw cosine of residual states is near 1 for anything, because all states share a mean, most of it in one or two rogue
coordinates (Ethayarajh 2019; Timkey & van Schijndel 2021, arXiv 2109.04404). The variants take that away:

- ``raw``: nothing is done.
- ``centred``: the mean of each arm is taken off its states, so that the gap between modalities goes too.
- ``no_rogue``: the coordinates with the largest share of the squared norm are set to 0, the same in both arms.
- ``whitened``: centred, then divided by the square root of the covariance within arms, both arms pooled, shrunk
  towards a multiple of the identity (Ledoit & Wolf 2004).

Centring on the states that are then compared makes an effect of its own: n centred states that all match have
mismatches of -1/(n - 1). So everything is fitted on the concepts of the other folds, each concept counting once, and
only concepts of one fold are compared with each other. What is left is the error of the mean: it adds about 1/n to
matches and mismatches of one fold alike. For raw states all concepts are one fold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.errors import UsageError
from interp.geometry.arms import FOLDS, ROUNDING, Arms

VARIANTS = ("raw", "centred", "no_rogue", "whitened")
ROGUE = 3
"""How many coordinates ``no_rogue`` takes out (Timkey & van Schijndel 2021 find one to three that dominate)."""
LEAST_SHRINKAGE = 1e-6

Rows = Float[Tensor, "row d_model"]
Means = Float[Tensor, "concept d_model"]
Prepared = tuple[Callable[[Rows], Rows], Callable[[Rows], Rows]]
"""What is done to the states of the image arm, and to those of the caption arm."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How arms are compared: the variant and the folds.

    Attributes:
        variant: one of `VARIANTS`.
        folds: of every concept; concepts of one fold are compared, on what was fitted on the others.
    """

    variant: str
    folds: Int[ndarray, " concept"]

    @classmethod
    def of(cls, arms: Arms, variant: str, *, folds: int = FOLDS, seed: int = 0) -> "Comparison":
        """The comparison of a variant, with folds drawn by ``seed``.

        Raises:
            UsageError: for an unknown variant, or too few concepts for the folds.
        """
        if variant not in VARIANTS:
            raise UsageError(f"variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
        return cls(variant, arms.folds(1 if variant == "raw" else folds, seed=seed))

    @property
    def rivals(self) -> ndarray:
        """(concept, concept) which are compared with which: different ones of the same fold."""
        same = self.folds[:, None] == self.folds
        return np.asarray(same & ~np.eye(len(same), dtype=bool))

    def directions(self, arms: Arms, layer: int) -> tuple[Rows, Rows]:
        """The states of both arms at one layer, prepared and of length 1, float64.

        A state of length 0 stays 0, and its cosine with anything is 0. So does one that differs from the mean taken
        off by no more than rounding, as all do at a layer where the arm is constant.

        Args:
            arms: the pairs.
            layer: place in ``arms.layers``, not the layer number.
        """
        states = [arm[:, layer].double() for arm in (arms.image, arms.caption)]
        if self.variant == "raw":
            return _unit(states[0], states[0]), _unit(states[1], states[1])
        means = [arms.by_concept(arm) for arm in states]
        found = [torch.zeros_like(arm) for arm in states]
        for fold in np.unique(self.folds):
            inside = self.folds[arms.codes] == fold
            others, rows = (torch.from_numpy(np.flatnonzero(mask)) for mask in (self.folds != fold, inside))
            prepared = FITTED[self.variant](means[0][others], means[1][others])
            for out, arm, prepare in zip(found, states, prepared, strict=True):
                out[rows] = _unit(prepare(arm[rows]), arm[rows])
        return found[0], found[1]


def rogue_share(image: Means, caption: Means) -> Float[Tensor, " d_model"]:
    """The share of every coordinate in the squared norm, the mean of both arms; sums to 1, or is 0 for zero states."""
    shares = []
    for arm in (image, caption):
        squared = arm.square().sum(0)
        shares.append(squared / squared.sum().clamp(min=torch.finfo(squared.dtype).tiny))
    return (shares[0] + shares[1]) / 2


def _unit(prepared: Rows, before: Rows) -> Rows:
    length = prepared.norm(dim=-1, keepdim=True)
    some = length > ROUNDING * before.norm(dim=-1, keepdim=True)
    return torch.where(some, prepared / torch.where(some, length, 1.0), 0.0)


def _centred(image: Means, caption: Means) -> Prepared:
    first, second = image.mean(0), caption.mean(0)
    return lambda rows: rows - first, lambda rows: rows - second


def _without_rogue(image: Means, caption: Means) -> Prepared:
    kept = torch.ones(image.shape[1], dtype=image.dtype)
    kept[rogue_share(image, caption).topk(min(ROGUE, len(kept) - 1)).indices] = 0
    return lambda rows: rows * kept, lambda rows: rows * kept


def _whitened(image: Means, caption: Means) -> Prepared:
    centred = _centred(image, caption)
    within = torch.cat([centred[0](image), centred[1](caption)])
    size = torch.cat([image, caption]).square().sum()
    if within.square().sum() <= ROUNDING**2 * size:
        return centred
    whiten = whitening(within)

    def white(centre: Callable[[Rows], Rows]) -> Callable[[Rows], Rows]:
        def prepare(rows: Rows) -> Rows:
            away = centre(rows)
            # What is only rounding must not be blown up.
            away = torch.where(away.norm(dim=-1, keepdim=True) > ROUNDING * rows.norm(dim=-1, keepdim=True), away, 0.0)
            return whiten(away)

        return prepare

    return white(centred[0]), white(centred[1])


def whitening(centred: Rows) -> Callable[[Rows], Rows]:
    """The inverse square root of the shrunk covariance of centred rows, as a function of rows.

    With fewer rows than coordinates the covariance is a multiple of the identity but for the span of the rows, so no
    matrix of d x d is ever made.

    Args:
        centred: rows of mean 0, not all of them 0.
    """
    n, width = centred.shape
    gram = centred @ centred.T
    shrunk = max(shrinkage(gram, width), LEAST_SHRINKAGE)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    basis = centred.T @ vectors / values.sqrt()
    rest = shrunk * float(gram.trace()) / n / width
    scale = ((1 - shrunk) * values / n + rest).rsqrt() - rest**-0.5
    return lambda rows: rows * rest**-0.5 + ((rows @ basis) * scale) @ basis.T


def shrinkage(gram: Float[Tensor, "row row"], width: int) -> float:
    """The weight of the identity that Ledoit & Wolf (2004) give a covariance of rows with these inner products.

    Returns:
        In [0, 1]; 1 where the covariance is already a multiple of the identity.
    """
    n = len(gram)
    squared = float(gram.square().sum()) / n**2
    distance = squared - float(gram.trace()) ** 2 / n**2 / width
    noise = (float(gram.diagonal().square().sum()) / n - squared) / n
    return min(max(noise / distance, 0.0), 1.0) if distance > 1e-12 * squared else 1.0


FITTED: dict[str, Callable[[Means, Means], Prepared]] = {
    "centred": _centred,
    "no_rogue": _without_rogue,
    "whitened": _whitened,
}
