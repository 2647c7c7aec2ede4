"""What transplants did: effects in nats, completeness as a fraction, and what is left beyond each placebo."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from analyses.cross_modal.resampled import Weights, mean_of
from analyses.cross_modal.transplant import OWN, SUFFICIENCY, Plan
from interp.stats import (
    Estimate,
    bootstrap_mean,
    group_weights,
    percentile_interval,
    ratio_of_resamples,
    simultaneous_interval,
    weighted_mean,
)

EFFECT, COMPLETENESS, BEYOND = "effect", "completeness", "beyond"
"""What a row of the table measures: nats, a fraction of the way, nats beyond a placebo."""


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve over layers with its resamples.

    Attributes:
        value: (layer,) NaN where it was not measured, or has no number.
        drawn: (resample, layer) the same in bootstrap resamples of the concepts.
    """

    value: Float[ndarray, " layer"]
    drawn: Float[ndarray, "resample layer"]

    @property
    def interval(self) -> tuple[Float[ndarray, " layer"], Float[ndarray, " layer"]]:
        """The 95 % interval, layer by layer."""
        return percentile_interval(self.drawn)

    @property
    def lower(self) -> Float[ndarray, " layer"]:
        """The lower end of the band that holds at all measured layers at once, for a layer chosen by looking."""
        return simultaneous_interval(self.value, self.drawn)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Transplants:
    """What was measured, in nats.

    Attributes:
        plan: what was transplanted where.
        units: the concept of every row.
        image: (row,) refusal log-odds of the image arm alone.
        caption: (row,) of the caption arm alone.
        found: by direction, (source, position, row, layer) the log-odds under transplants; NaN where none was run.
    """

    plan: Plan
    units: tuple[str, ...]
    image: Float[ndarray, " row"]
    caption: Float[ndarray, " row"]
    found: Mapping[str, Float[ndarray, "source position row layer"]]

    @property
    def weights(self) -> Weights:
        """How often every row is drawn in each resample of the concepts."""
        return group_weights(self.units, seed=self.plan.seed)

    def ends(self, direction: str) -> tuple[Float[ndarray, " row"], Float[ndarray, " row"]]:
        """The log-odds of the run that is written into, and of the one that is written from."""
        return (self.image, self.caption) if direction == SUFFICIENCY else (self.caption, self.image)

    @property
    def gap(self) -> Estimate:
        """How much more the caption arm refuses than the image arm, in nats."""
        return mean_of(self.caption - self.image, self.weights)

    def changed(self, direction: str, source: str, position: str) -> Float[ndarray, "row layer"]:
        """How far every row went the way of the source: towards refusing for sufficiency, else away from it."""
        base, _ = self.ends(direction)
        own = self.found[direction][self.plan.sources.index(source), self.plan.positions.index(position)]
        return np.asarray((own - base[:, None]) * (1 if direction == SUFFICIENCY else -1))

    def effect(self, direction: str, source: str, position: str) -> Band:
        """The mean change, in nats; positive is the way of the source."""
        return self._band(self.changed(direction, source, position))

    def beyond(self, direction: str, placebo: str, position: str, *, times: float = 1.0) -> Band:
        """The change by the pair's own states minus some times that by a placebo, within rows, in nats."""
        own, other = (self.changed(direction, source, position) for source in (OWN, placebo))
        return self._band(own - times * other)

    def completeness(self, direction: str, source: str, position: str) -> Band:
        """How much of the way from one run to the other is gone: mean change over mean difference of the two runs.

        Returns:
            0 for nothing and 1 for all of it; below 0 or above 1 where a transplant goes the other way or beyond. NaN
            throughout where the interval of the difference holds 0: between runs that do not differ there is no way.
        """
        whole = (self.caption - self.image)[:, None].repeat(len(self.plan.layers), 1)
        top, bottom = self.effect(direction, source, position), self._band(whole)
        return Band(*ratio_of_resamples(top.value, bottom.value, top.drawn, bottom.drawn))

    def _band(self, values: Float[ndarray, "row layer"]) -> Band:
        return Band(values.mean(0), weighted_mean(values, self.weights))


def transplant_table(found: Transplants) -> pd.DataFrame:
    """One row per direction, position, source, measure and layer that was measured.

    Returns:
        direction, position, source, measure (`EFFECT` and `BEYOND` in nats, `COMPLETENESS` a fraction), layer, value,
        lo, hi (bootstrap over concepts, layer by layer) and n. ``BEYOND`` stands with the placebo it is beyond.
    """
    columns = ["direction", "position", "source", "measure", "layer", "value", "lo", "hi", "n"]
    return pd.DataFrame(_rows(found), columns=columns)


def _rows(found: Transplants) -> Iterator[tuple[object, ...]]:
    plan = found.plan
    for direction in found.found:
        for position in plan.positions:
            for source in plan.sources:
                bands = {
                    EFFECT: found.effect(direction, source, position),
                    COMPLETENESS: found.completeness(direction, source, position),
                }
                if source != OWN:
                    bands[BEYOND] = found.beyond(direction, source, position)
                for measure, band in bands.items():
                    lo, hi = band.interval
                    for i, layer in enumerate(plan.layers):
                        if layer in plan.runs(source):
                            numbers = (band.value[i], lo[i], hi[i], len(found.units))
                            yield (direction, position, source, measure, layer, *numbers)


def arms_table(found: Transplants) -> pd.DataFrame:
    """The two runs by themselves and their difference: refusal log-odds, nats, with intervals over concepts."""
    weights, rows = found.weights, []
    for name, values in (
        ("image", found.image), ("caption", found.caption), ("caption - image", found.caption - found.image)
    ):  # fmt: skip
        value, lo, hi = bootstrap_mean(values, weights)
        rows.append((name, float(value), float(lo), float(hi), len(values)))
    return pd.DataFrame(rows, columns=["arm", "value", "lo", "hi", "n"])
