"""What a locator that fires prompt by prompt returns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.errors import UsageError


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


def require_consecutive(layers: tuple[int, ...], locator: str) -> None:
    """Raises UsageError when a layer between the first and the last is missing: these rules compare neighbours."""
    if layers != tuple(range(layers[0], layers[-1] + 1)):
        raise UsageError(f"{locator} compares each layer with the one below; {list(layers)} has gaps.")
