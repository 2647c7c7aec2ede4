"""Whether the directions along which pictures differ are those along which their captions differ."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.errors import UsageError
from interp.geometry.arms import ROUNDING, Arms
from interp.geometry.profile import Profile
from interp.stats import percentile_interval

DIMENSIONS = 8
HALVINGS = 20


def subspace_overlap(
    arms: Arms, *, dimensions: int = DIMENSIONS, halvings: int = HALVINGS, seed: int = 0
) -> tuple[Profile, Profile, Profile]:
    """How much the leading subspaces of both arms share, beside what those of other concepts share.

    The subspace is that of the largest principal components of concept means; the overlap of two is the mean squared
    cosine of their principal angles (Golub & Van Loan 2013, section 6.4.3). All states of a model vary along much the
    same directions, so the floor is no random subspace but that of captions of other concepts: concepts are halved at
    random, the subspace of pictures of one half is set against that of their captions and of the other half's.

    Args:
        arms: the pairs.
        dimensions: of the subspaces; at most one less than half of the concepts.
        halvings: how many; both halves of each are used.
        seed: of the halvings.

    Returns:
        ``subspace overlap`` in [0, 1] with the overlap of other concepts as its floor; ``subspace excess``, their
        difference, with the floor 0; ``subspace ceiling``, pictures of one half against pictures of the other, with
        dimensions / width, the overlap of random subspaces, as its floor. Intervals are percentiles over halvings: a
        half drawn without the other varies about its mean as a sample of all concepts does about the truth. NaN at a
        layer where an arm does not differ.

    Raises:
        UsageError: for too few concepts.
    """
    n, width = len(arms.names), arms.image.shape[-1]
    if dimensions < 1 or dimensions > min(n // 2 - 1, width - 1):
        raise UsageError(
            f"{dimensions} dimensions of {width}, from halves of {n} concepts: half of the concepts must be more than "
            "the dimensions, and those fewer than the width; give fewer dimensions or more concepts."
        )
    halves = _halves(n, halvings, seed)
    found = np.full((3, 2 * halvings, len(arms.layers)), np.nan)
    for i in range(len(arms.layers)):
        means = [arms.by_concept(arm[:, i].double()) for arm in (arms.image, arms.caption)]
        for k, half in enumerate(halves):
            found[:, 2 * k : 2 * k + 2, i] = _overlaps(means[0], means[1], half, dimensions)
    same, other, ceiling = found
    random = np.full(len(arms.layers), dimensions / width)

    def profile(measure: str, drawn: ndarray, floor: ndarray) -> Profile:
        variant = f"{dimensions} components"
        return Profile(measure, variant, arms.layers, drawn.mean(0), *percentile_interval(drawn), floor, n)

    return (
        profile("subspace overlap", same, other.mean(0)),
        profile("subspace excess", same - other, np.zeros(len(arms.layers))),
        profile("subspace ceiling", ceiling, random),
    )


def overlap(one: Float[Tensor, "d_model k"], other: Float[Tensor, "d_model k"]) -> float:
    """The mean squared cosine of the principal angles of two subspaces given by orthonormal columns, in [0, 1]."""
    return float((one.T @ other).square().sum() / one.shape[1])


def leading(rows: Float[Tensor, "row d_model"], dimensions: int) -> Float[Tensor, "d_model k"] | None:
    """Orthonormal directions along which the rows vary most; None where they vary in fewer, beyond rounding."""
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    if values[-dimensions] <= ROUNDING**2 * rows.square().sum():
        return None
    basis: Tensor = centred.T @ vectors[:, -dimensions:] / values[-dimensions:].sqrt()
    return basis


def _halves(n: int, halvings: int, seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.permutation(n) < n // 2) for _ in range(halvings)]


def _overlaps(image: Tensor, caption: Tensor, half: Tensor, dimensions: int) -> Float[ndarray, "3 2"]:
    """Overlap of pictures with their captions, with those of the other half, and with pictures of the other half."""
    pictures = [leading(image[part], dimensions) for part in (half, ~half)]
    texts = [leading(caption[part], dimensions) for part in (half, ~half)]
    a, b, c, d = *pictures, *texts
    if a is None or b is None or c is None or d is None:
        return np.full((3, 2), np.nan)
    ceiling = overlap(a, b)
    return np.array([[overlap(a, c), overlap(b, d)], [overlap(a, d), overlap(b, c)], [ceiling, ceiling]])
