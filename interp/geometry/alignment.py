"""Cosine of a picture's state with that of its caption, never without the cosine of what does not belong together."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.geometry.arms import FOLDS, Arms
from interp.geometry.profile import Profile, frame
from interp.geometry.variants import Comparison
from interp.pair_stats import max_p, pair_mean, permuted_partners
from interp.stats import PERMUTATIONS, RESAMPLES, percentile_interval, weighted_mean

Unit = Float[Tensor, "pair d_model"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Cosines by layer with their floors.

    Attributes:
        matched: mean cosine of pictures with their own captions; its floor is the next.
        shuffled: mean cosine with the captions of all other concepts.
        excess: matched minus shuffled, the headline, with the permutation p of the layer that stands out most; its
            floor is the mean of its permutations, about 0.
        attained: excess as a share of the most it could be, 1 - shuffled: 0 for chance, 1 for states that are the
            same, so that spaces of different floors can be compared; NaN where shuffled is 1.
        images: mean cosine of pictures of different concepts, "random pairs" of that arm.
        captions: the same of captions.
    """

    matched: Profile
    shuffled: Profile
    excess: Profile
    attained: Profile
    images: Profile
    captions: Profile

    def frame(self) -> pd.DataFrame:
        """All of them, in the columns `interp.geometry.profile.COLUMNS`."""
        return frame((self.excess, self.attained, self.matched, self.shuffled, self.images, self.captions))


def alignment(
    arms: Arms,
    variant: str = "centred",
    *,
    folds: int = FOLDS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Alignment:
    """The alignment of two arms by layer.

    Every concept counts once, whatever its number of pictures. The floor is the mean over all pairs of concepts that
    may be compared, not over one shuffle. Intervals resample concepts, with what was fitted held fixed: an error of
    the mean that was taken off moves matched and shuffled alike and leaves the excess. The permutation lets whole
    concepts exchange captions.

    Args:
        arms: the pairs.
        variant: one of `interp.geometry.variants.VARIANTS`.
        folds: into how many the concepts are dealt for what is fitted; raw states need none.
        seed: of folds, bootstrap and permutations.
        resamples: of the bootstrap.
        permutations: of the captions.

    Returns:
        Cosines in [-1, 1]; 0 for a state of length 0. Excess in [-2, 2].

    Raises:
        UsageError: for an unknown variant, or too few concepts for the folds.
    """
    how = Comparison.of(arms, variant, folds=folds, seed=seed)
    weights = np.concatenate([np.ones((1, len(arms.names))), arms.weights(seed=seed, resamples=resamples)])
    partners = permuted_partners(arms.codes, how.folds, permutations=permutations, seed=seed)
    drawn, permuted = np.empty((4, len(weights), len(arms.layers))), np.empty((permutations, len(arms.layers)))
    for i in range(len(arms.layers)):
        image, caption = how.directions(arms, i)
        drawn[0, :, i] = weighted_mean(arms.share @ (image * caption).sum(-1).numpy(), weights)
        means = arms.by_concept(image), arms.by_concept(caption)
        for k, (one, other) in enumerate(((0, 1), (0, 0), (1, 1)), start=1):
            drawn[k, :, i] = pair_mean((means[one] @ means[other].T).numpy(), weights, how.rivals)
        permuted[:, i] = _permuted(arms, image, caption, partners)
    return _profiles(arms, variant, drawn, permuted - drawn[1, 0])


def _permuted(arms: Arms, image: Unit, caption: Unit, partners: ndarray) -> Float[ndarray, " permutation"]:
    """The mean cosine with the captions that a permutation gives."""
    cosine = (image @ caption.T).numpy()
    found: ndarray = cosine[np.arange(len(arms)), partners] @ arms.share.mean(0)
    return found


def _profiles(
    arms: Arms,
    variant: str,
    drawn: Float[ndarray, "4 resample layer"],
    permuted: Float[ndarray, "permutation layer"],
) -> Alignment:
    matched, shuffled, images, captions = drawn
    excess = matched - shuffled
    with np.errstate(invalid="ignore", divide="ignore"):
        attained = np.where(1 - shuffled > 1e-9, excess / (1 - shuffled), np.nan)
    floor, none = shuffled[0], np.zeros(len(arms.layers))

    def profile(measure: str, curve: ndarray, floor: ndarray, p: float | None = None) -> Profile:
        ends = percentile_interval(curve[1:])
        return Profile(measure, variant, arms.layers, curve[0], *ends, floor, len(arms.names), curve[1:], p)

    return Alignment(
        profile("cosine", matched, floor),
        profile("cosine of other concepts", shuffled, floor),
        profile("excess", excess, permuted.mean(0), max_p(excess[0], permuted)),
        profile("attained", attained, none),
        profile("cosine of unrelated images", images, images[0]),
        profile("cosine of unrelated captions", captions, captions[0]),
    )
