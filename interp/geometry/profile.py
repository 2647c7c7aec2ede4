"""What a measure of two arms gives: a number per layer with its interval, its floor and its n."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from jaxtyping import Float
from numpy import ndarray

COLUMNS = ("measure", "variant", "layer", "value", "lo", "hi", "floor", "n")


@dataclass(frozen=True, slots=True)
class Profile:
    """A measure by layer.

    Attributes:
        measure: its name.
        variant: what was done to the states before; see `interp.geometry.variants`.
        layers: layer numbers.
        value: (layer,) the measure.
        lo: (layer,) lower end of the 95 % interval.
        hi: (layer,) upper end.
        floor: (layer,) what unrelated pairs give.
        n: how many concepts.
        drawn: (resample, layer) the measure in bootstrap resamples of the concepts, which are the same for every
            profile of the same arms and seed, so that profiles may be compared draw by draw; None where the interval
            is not a bootstrap's.
        p: of the layer that stands out most, by permutation, the choice paid for; None where none was made.
    """

    measure: str
    variant: str
    layers: tuple[int, ...]
    value: Float[ndarray, " layer"]
    lo: Float[ndarray, " layer"]
    hi: Float[ndarray, " layer"]
    floor: Float[ndarray, " layer"]
    n: int
    drawn: Float[ndarray, "resample layer"] | None = None
    p: float | None = None

    def frame(self) -> pd.DataFrame:
        """One row per layer, in the columns `COLUMNS`."""
        rows = zip(self.layers, self.value, self.lo, self.hi, self.floor, strict=True)
        return pd.DataFrame([(self.measure, self.variant, *row, self.n) for row in rows], columns=list(COLUMNS))


def frame(profiles: Iterable[Profile]) -> pd.DataFrame:
    """The rows of several profiles, one below the other."""
    return pd.concat([profile.frame() for profile in profiles], ignore_index=True)
