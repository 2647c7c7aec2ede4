"""What a locator that fires prompt by prompt returns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from interp.errors import UsageError
from interp.stats import Estimate, bootstrap_censored_median


@dataclass(frozen=True, slots=True)
class Firing:
    """Where a rule's condition holds.

    Attributes:
        locator: the rule's name.
        layers: the layer numbers of the second axis, ascending, without gaps.
        fires: (prompt, layer) whether the condition holds there.
    """

    locator: str
    layers: tuple[int, ...]
    fires: Bool[ndarray, "prompt layer"]

    @property
    def onset(self) -> Float[ndarray, " prompt"]:
        """The first layer at which the rule fires; inf for a prompt on which it never does (censored)."""
        first = np.asarray(self.layers, dtype=np.float64)[self.fires.argmax(1)]
        return np.where(self.fires.any(1), first, np.inf)

    @property
    def fired_by(self) -> Bool[ndarray, "prompt layer"]:
        """Whether the rule has fired at this layer or below."""
        return np.logical_or.accumulate(self.fires, axis=1)

    def curve(self, contrast: Contrast) -> Curve:
        """The share of prompts fired by each layer, first kind minus the other, with each kind's own; null 0."""
        fired = self.fired_by.astype(np.float64)
        return Curve.of_scores(self.locator, self.layers, fired, contrast, unit="share of prompts fired by this layer")

    def median_onset(self, contrast: Contrast) -> Estimate:
        """The median first layer over prompts of the first kind, with its interval; inf when half never fire."""
        first = contrast.first
        return bootstrap_censored_median(self.onset[contrast.kept][first], contrast.weights[:, first])


def require_consecutive(layers: tuple[int, ...], locator: str) -> None:
    """Raises UsageError when a layer between the first and the last is missing: these rules compare neighbours."""
    if layers != tuple(range(layers[0], layers[-1] + 1)):
        raise UsageError(f"{locator} compares each layer with the one below; {list(layers)} has gaps.")
