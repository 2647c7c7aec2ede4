"""Whether a picture's state finds its caption among the captions of other concepts."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from interp.geometry.arms import FOLDS, Arms
from interp.geometry.profile import Profile
from interp.geometry.variants import Comparison
from interp.stats import RESAMPLES, percentile_interval, weighted_mean


def retrieval(
    arms: Arms, variant: str = "centred", *, folds: int = FOLDS, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Profile, Profile]:
    """How high a picture's own caption ranks by cosine, by layer.

    There is one candidate per concept of the same fold: the picture's own caption, and of every other concept the mean
    cosine with its captions. So the number of candidates, and chance, hang on the folds; raw states have one fold.

    Args:
        arms: the pairs.
        variant: one of `interp.geometry.variants.VARIANTS`.
        folds: as of `interp.geometry.alignment.alignment`.
        seed: of folds and bootstrap.
        resamples: of the bootstrap.

    Returns:
        ``top-1``, the share ranked first, and ``MRR``, the mean of 1 / rank, each in [0, 1] with chance as its floor.
        Equal cosines share their ranks, so states that do not differ give chance exactly.

    Raises:
        UsageError: as `alignment`.
    """
    how = Comparison.of(arms, variant, folds=folds, seed=seed)
    weights = np.concatenate([np.ones((1, len(arms.names))), arms.weights(seed=seed, resamples=resamples)])
    rivals = how.rivals[arms.codes]
    found = np.empty((2, len(weights), len(arms.layers)))
    for i in range(len(arms.layers)):
        image, caption = how.directions(arms, i)
        own = (image * caption).sum(-1).numpy()
        others = (image @ arms.by_concept(caption).T).numpy()
        for k, score in enumerate(_scores(own, others, rivals)):
            found[k, :, i] = weighted_mean(arms.share @ score, weights)
    candidates = how.rivals.sum(1) + 1
    chance = (1 / candidates).mean(), (_harmonic(candidates) / candidates).mean()
    profiles = [
        Profile(
            name,
            variant,
            arms.layers,
            drawn[0],
            *percentile_interval(drawn[1:]),
            np.full(len(arms.layers), floor),
            len(arms.names),
            drawn[1:],
        )
        for name, drawn, floor in zip(("top-1", "MRR"), found, chance, strict=True)
    ]
    return profiles[0], profiles[1]


def _scores(
    own: Float[ndarray, " pair"], others: Float[ndarray, "pair concept"], rivals: ndarray
) -> tuple[Float[ndarray, " pair"], Float[ndarray, " pair"]]:
    """Share of first ranks and mean of 1 / rank over the ranks that ties could take."""
    tie = np.abs(others - own[:, None]) <= 1e-12
    above = (rivals & (others > own[:, None]) & ~tie).sum(1)
    equal = (rivals & tie).sum(1)
    first = (above == 0) / (equal + 1)
    return first, (_harmonic(above + equal + 1) - _harmonic(above)) / (equal + 1)


def _harmonic(n: ndarray) -> ndarray:
    """1 + 1/2 + ... + 1/n of every n."""
    sums = np.concatenate([[0.0], (1 / np.arange(1, int(n.max()) + 1)).cumsum()])
    return np.asarray(sums[n])
