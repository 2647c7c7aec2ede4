"""The direction along which text tells scenes from harmless pairs, fitted without the concept it is tried on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.cross_modal.diagnostics import layers_table
from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.mean_difference import mean_difference
from interp.axes import States
from interp.errors import UsageError
from interp.geometry import Arms, Drift, Profile, drift
from interp.geometry.profile import frame
from interp.pair_stats import max_p
from interp.stats import PERMUTATIONS, percentile_interval, weighted_mean

NAMES = ("scene", "harmless")
MEASURE = "separation along refusal"
FOLDS = 4
FEWEST = 4
"""Concepts of each kind without which no direction is fitted."""


@dataclass(frozen=True)
class Separation:
    """How far each arm tells scenes from harmless pairs along the direction of the text arm, and the drift along it.

    Attributes:
        text: held-out separation of the text arm at t_post, by layer, in standard deviations.
        captions: by place, how far captions of scenes lie from harmless ones, in distances of the text arm's means.
        pictures: by place, the same of pictures.
        lost: by place, pictures minus captions; what moves all pictures alike, as a modality does, is not in it.
        scenes: by place, the drift of pictures of scenes from their captions, the modality's offset included.
        harmless: by place, that of twins and ordinary pictures.
    """

    text: Curve
    captions: dict[str, Profile]
    pictures: dict[str, Profile]
    lost: dict[str, Profile]
    scenes: dict[str, Drift]
    harmless: dict[str, Drift]

    @property
    def safety_layers(self) -> tuple[int, ...]:
        """The layers at which text separates at least half as far as at its peak; empty where it does not at all."""
        if not self.text.height.lo > self.text.null:
            return ()
        least = self.text.share * float(np.nanmax(self.text.values))
        return tuple(k for k, value in zip(self.text.layers, self.text.values, strict=True) if value >= least)

    def layers_table(self) -> pd.DataFrame:
        """Its rows of a ``layers`` table."""
        parts = [self.text.table(family="none", position="t_post").assign(floor=self.text.null)]
        for place in self.scenes:
            arms = (("captions", self.captions), ("pictures", self.pictures), ("pictures - captions", self.lost))
            for group, profiles in arms:
                parts.append(layers_table(frame([profiles[place]]), position=place, group=group))
            for group, found in (("scenes", self.scenes), ("harmless", self.harmless)):
                parts.append(layers_table(found[place].frame(), position=place, group=group))
        return pd.concat(parts, ignore_index=True)


def separation(
    text: dict[str, States], arms: dict[str, Arms], harmful: Bool[ndarray, " pair"], *, seed: int = 0
) -> Separation | None:
    """Fits the directions on the text arm and looks along them in the other arms.

    Args:
        text: by place, the text arm's states of every pair; t_post is needed.
        arms: by place; those at the places of ``text`` are measured.
        harmful: which pairs show a scene.
        seed: of folds, bootstrap, permutations and random directions.

    Returns:
        None where a kind has too few concepts.
    """
    whole = next(iter(arms.values()))
    kinds = np.array([harmful[whole.codes == c].any() for c in range(len(whole.names))])
    if min(kinds.sum(), (~kinds).sum()) < FEWEST:
        return None
    captions: dict[str, Profile] = {}
    pictures: dict[str, Profile] = {}
    lost: dict[str, Profile] = {}
    scenes: dict[str, Drift] = {}
    harmless: dict[str, Drift] = {}
    for place in [p for p in text if p in arms]:
        directions = held_out_directions(whole.by_concept(text[place].double()), kinds, seed=seed)
        captions[place], pictures[place], lost[place] = _separations(arms[place], directions, kinds, seed)
        for number, (drifts, those) in enumerate(((scenes, kinds), (harmless, ~kinds))):
            part = arms[place].only(those[whole.codes])
            rows = torch.from_numpy(np.flatnonzero(those))
            # Seeds of their own, for the two kinds are resampled apart.
            drifts[place] = drift(part, directions[rows], background=text[place], seed=seed + number)
    contrast = Contrast.of_rows(kinds, whole.names, names=NAMES, seed=seed)
    curve = mean_difference(whole.by_concept(text["t_post"].double()).float(), whole.layers, contrast)
    return Separation(curve, captions, pictures, lost, scenes, harmless)


def _separations(
    arms: Arms, directions: Float[Tensor, "concept layer d_model"], kinds: Bool[ndarray, " concept"], seed: int
) -> tuple[Profile, Profile, Profile]:
    """Scenes minus harmless along the directions, of captions, of pictures, and of pictures minus captions."""
    squared = directions.square().sum(-1)
    means = [arms.by_concept(arm.double()) for arm in (arms.caption, arms.image)]
    # With its mean taken off, an arm's offset does not come in through the small differences between the directions.
    captions, pictures = (
        torch.where(squared > 0, ((arm - arm.mean(0)) * directions).sum(-1) / squared, 0.0).numpy() for arm in means
    )
    weights = np.concatenate([np.ones((1, len(kinds))), arms.weights(seed=seed)])
    rng, found = np.random.default_rng(seed), []
    for values in (captions, pictures, pictures - captions):
        drawn = weighted_mean(values[kinds], weights[:, kinds]) - weighted_mean(values[~kinds], weights[:, ~kinds])
        shuffled = np.stack([_apart(values, rng.permutation(kinds)) for _ in range(PERMUTATIONS)])
        # Both sides are tested, and paid for.
        p = 2 * min(max_p(side * drawn[0], side * shuffled) for side in (1, -1))
        ends, floor = percentile_interval(drawn[1:]), np.zeros(len(arms.layers))
        found.append(Profile(MEASURE, "raw", arms.layers, drawn[0], *ends, floor, len(kinds), drawn[1:], min(p, 1.0)))
    return found[0], found[1], found[2]


def _apart(values: Float[ndarray, "concept layer"], first: Bool[ndarray, " concept"]) -> Float[ndarray, " layer"]:
    return np.asarray(values[first].mean(0) - values[~first].mean(0))


def held_out_directions(
    means: Float[Tensor, "concept layer d_model"], first: Bool[ndarray, " concept"], *, seed: int = 0
) -> Float[Tensor, "concept layer d_model"]:
    """For every concept the mean of the first kind minus that of the other, over the concepts of other folds.

    Raises:
        UsageError: when a fold would leave a kind without a concept.
    """
    rng = np.random.default_rng(seed)
    folds = np.empty(len(first), dtype=int)
    for kind in (first, ~first):
        if kind.sum() < 2:
            raise UsageError(f"{int(kind.sum())} concept of a kind: a direction fitted without it needs two or more.")
        folds[kind] = rng.permutation(np.arange(int(kind.sum())) % min(FOLDS, int(kind.sum())))
    found = torch.empty_like(means)
    for fold in np.unique(folds):
        yes, no = (torch.from_numpy(np.flatnonzero(kind & (folds != fold))) for kind in (first, ~first))
        found[torch.from_numpy(folds == fold)] = means[yes].mean(0) - means[no].mean(0)
    return found
