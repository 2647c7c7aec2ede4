"""How much of what sets pictures apart from their captions lies along a direction, such as that of refusal."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.axes import States
from interp.errors import UsageError
from interp.geometry.arms import Arms
from interp.geometry.profile import Profile, frame
from interp.pair_stats import pair_mean
from interp.stats import RESAMPLES, percentile_interval, weighted_mean

DIRECTIONS = 200


@dataclass(frozen=True, slots=True)
class Drift:
    """What `drift` finds.

    Attributes:
        along: mean of (image - caption) along the direction, in its lengths; its floor is 0.
        random: the mean size of the same along random directions of the same length; its interval is where 95 % of
            their sizes lie.
        share: of the squared distance between the centroids, what is along the direction, at most about 1; its floor
            is the mean share of the random directions.
        p: by layer, (1 + random directions along which the drift is at least as large) / (1 + random directions).
    """

    along: Profile
    random: Profile
    share: Profile
    p: Float[ndarray, " layer"]

    def frame(self) -> pd.DataFrame:
        """All of them, in the columns `interp.geometry.profile.COLUMNS`."""
        return frame((self.along, self.random, self.share))


def drift(
    arms: Arms,
    direction: Float[Tensor, "*concept layer d_model"],
    *,
    name: str = "refusal",
    background: States | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    directions: int = DIRECTIONS,
) -> Drift:
    """How far pictures lie from their captions along a direction, beside random directions.

    Args:
        arms: the pairs.
        direction: at every layer; its length is the unit. With the mean of harmful prompts minus that of harmless
            ones, -1 is as far towards harmless as those means are apart. It must not be fitted on what it is tried on:
            give one that other prompts gave, or one for every concept of ``arms.names``, fitted without it.
        name: of the direction.
        background: states whose variation the random directions follow; the captions by default. A uniformly random
            direction meets almost nothing of states that vary along few, and so would flatter any other.
        seed: of bootstrap and random directions.
        resamples: of the bootstrap.
        directions: how many random ones.

    Returns:
        NaN for a direction of length 0; the share is NaN where there is no gap.

    Raises:
        UsageError: for a direction of other layers or width.
    """
    directions_of = _per_concept(arms, direction)
    n, layers = len(arms.names), arms.layers
    weights = np.concatenate([np.ones((1, n)), arms.weights(seed=seed, resamples=resamples)])
    generator = torch.Generator().manual_seed(seed)
    states = arms.caption if background is None else background
    along, share = np.full((2, len(weights), len(layers)), np.nan)
    sizes, shares = np.full((2, directions, len(layers)), np.nan)
    for i in range(len(layers)):
        length = directions_of[:, i].norm(dim=-1)
        if (length > 0).all():
            apart = arms.by_concept(arms.image[:, i].double() - arms.caption[:, i].double())
            random = _random(states[:, i].double(), directions, generator)
            own = ((apart * directions_of[:, i]).sum(-1) / length).numpy()
            along[:, i] = weighted_mean(own / length.numpy(), weights)
            sizes[:, i] = np.abs((apart @ random).numpy().mean(0)) / float(length.mean())
            share[:, i], shares[:, i] = _shares(apart, own, (apart @ random).numpy(), weights)
    p = (1 + (sizes >= np.abs(along[0])).sum(0)) / (1 + directions)
    zero = np.zeros(len(layers))
    return Drift(
        Profile(f"drift along {name}", "raw", layers, along[0], *percentile_interval(along[1:]), zero, n, along[1:]),
        Profile("drift along random directions", "raw", layers, sizes.mean(0), *percentile_interval(sizes), zero, n),
        _share_profile(name, layers, share, shares, n),
        np.where(np.isnan(along[0]), np.nan, p),
    )


def _per_concept(arms: Arms, direction: Float[Tensor, "*concept layer d_model"]) -> Float[Tensor, "n layer d_model"]:
    shape = arms.image.shape[1:]
    if direction.shape not in (shape, (len(arms.names), *shape)):
        raise UsageError(
            f"direction {tuple(direction.shape)}, but layers and width are {tuple(shape)}; give one row per layer of "
            "the arms, or that for every concept."
        )
    return direction.double().expand(len(arms.names), *shape)


def _share_profile(
    name: str, layers: tuple[int, ...], share: Float[ndarray, "resample layer"], shares: ndarray, n: int
) -> Profile:
    measure = f"share of gap along {name}"
    ends = percentile_interval(share[1:])
    return Profile(measure, "raw", layers, share[0], *ends, shares.mean(0), n, share[1:])


def _shares(
    apart: Float[Tensor, "concept d_model"],
    own: Float[ndarray, " concept"],
    random: Float[ndarray, "concept direction"],
    weights: Float[ndarray, "resample concept"],
) -> tuple[Float[ndarray, " resample"], Float[ndarray, " direction"]]:
    """Shares of the squared distance of means, of products of different concepts, so that noise adds nothing."""
    n, different = len(own), ~np.eye(len(own), dtype=bool)
    whole = pair_mean((apart @ apart.T).numpy(), weights, different)
    part = pair_mean(np.outer(own, own), weights, different)
    others = (random.sum(0) ** 2 - (random**2).sum(0)) / (n * (n - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan), np.where(whole[0] > 0, others / whole[0], np.nan)


def _random(
    rows: Float[Tensor, "row d_model"], count: int, generator: torch.Generator
) -> Float[Tensor, "d_model direction"]:
    """Directions of length 1 with the covariance of states: sums of centred rows with standard normal weights."""
    mix = torch.randn(count, len(rows), generator=generator, dtype=torch.float64)
    drawn = mix @ (rows - rows.mean(0))
    unit: Tensor = drawn / drawn.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return unit.T
