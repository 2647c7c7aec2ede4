"""How far apart the two arms lie."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.geometry.arms import ROUNDING, Arms
from interp.geometry.profile import Profile
from interp.pair_stats import pair_mean
from interp.stats import PERMUTATIONS, RESAMPLES, percentile_interval


def modality_gap(arms: Arms, *, seed: int = 0, resamples: int = RESAMPLES, permutations: int = PERMUTATIONS) -> Profile:
    """The distance between the centroids of the arms, in root mean square distances of a concept from its centroid.

    The squared distance of means is taken from products of different concepts only, so noise adds nothing to it (a
    plain distance of two means is above 0 even for the same population); below 0 it counts as 0.

    Args:
        arms: the pairs.
        seed: of bootstrap and sign changes.
        resamples: of the bootstrap.
        permutations: in which concepts at random exchange their two arms, for the floor.

    Returns:
        At least 0; the floor is the mean over exchanges, where there is no gap. NaN where neither arm varies.
    """
    n = len(arms.names)
    weights = np.concatenate([np.ones((1, n)), arms.weights(seed=seed, resamples=resamples)])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n))
    different = ~np.eye(n, dtype=bool)
    drawn, floor = np.empty((len(weights), len(arms.layers))), np.empty(len(arms.layers))
    for i in range(len(arms.layers)):
        image, caption = (arms.by_concept(arm[:, i].double()) for arm in (arms.image, arms.caption))
        apart = image - caption
        products = (apart @ apart.T).numpy()
        spread = _spread(image, weights) + _spread(caption, weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            squared = pair_mean(products, weights, different) / (spread / 2)
            flipped = ((signs @ np.where(different, products, 0.0)) * signs).sum(1) / (n * (n - 1)) / (spread[0] / 2)
        drawn[:, i] = _root(squared, spread)
        floor[i] = _root(flipped, spread[:1]).mean()
    return Profile("modality gap", "raw", arms.layers, drawn[0], *percentile_interval(drawn[1:]), floor, n, drawn[1:])


def _spread(rows: Float[Tensor, "concept d_model"], weights: ndarray) -> Float[ndarray, " resample"]:
    """The variance summed over coordinates in every resample, unbiased; 0 where it is only rounding."""
    n = len(rows)
    products = (rows @ rows.T).numpy()
    squared = np.diag(products)
    apart = squared[:, None] + squared - 2 * products
    found = pair_mean(apart, weights, ~np.eye(n, dtype=bool)) / 2
    return np.where(found > ROUNDING**2 * squared.mean(), found, 0.0)


def _root(squared: ndarray, spread: ndarray) -> ndarray:
    return np.where(spread > 0, np.sqrt(np.clip(squared, 0, None)), np.nan)
