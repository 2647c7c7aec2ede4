"""What every locator gives: how far two kinds of prompts are apart at each layer, and from which layer on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from analyses.locators.contrast import Contrast
from interp.errors import UsageError
from interp.metrics import auroc
from interp.stats import (
    Estimate,
    bootstrap_mean,
    layer_interval,
    percentile_interval,
    simultaneous_interval,
    weighted_mean,
)
from interp.study import LAYERS_COLUMNS

HALF = 0.5
ROUNDING = 1e-12
"""A difference of means below this share of the scores is rounding."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The same measure on one kind of prompt alone.

    Attributes:
        name: such as harmless.
        value: (layer,) in the unit of the curve.
        lo: (layer,) lower end of the 95 % interval, layer by layer.
        hi: (layer,) upper end.
        n: how many prompts.
    """

    name: str
    value: Float[ndarray, " layer"]
    lo: Float[ndarray, " layer"]
    hi: Float[ndarray, " layer"]
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A measure of separation by layer, with its resamples.

    Attributes:
        locator: its name.
        layers: layer numbers, ascending.
        values: (layer,) the measure; NaN where it has none.
        drawn: (resample, layer) the measure in bootstrap resamples of the groups.
        unit: of the values.
        n: how many prompts it rests on.
        contrast: which kinds it separates, "harmful - harmless".
        null: the value where nothing separates: 0 for differences, 0.5 for AUROC, 1 for ratios.
        share: of the way from null to the peak, at which `onset` is; the locator's own, 0.5 unless it says otherwise.
        kinds: the same measure on each kind alone, where that has a meaning.
    """

    locator: str
    layers: tuple[int, ...]
    values: Float[ndarray, " layer"]
    drawn: Float[ndarray, "resample layer"]
    unit: str
    n: int
    contrast: str
    null: float = 0.0
    share: float = HALF
    kinds: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.layers) == len(self.values) == self.drawn.shape[1]:
            raise UsageError(
                f"{self.locator}: {len(self.layers)} layer numbers for {len(self.values)} layers; give one for each."
            )
        if not 0 < self.share <= 1:
            raise UsageError(f"{self.locator}: share {self.share} is outside (0, 1].")

    @classmethod
    def of_scores(
        cls,
        locator: str,
        layers: tuple[int, ...],
        scores: Float[ndarray, "prompt layer"],
        contrast: Contrast,
        *,
        unit: str,
    ) -> "Curve":
        """The mean score of the first kind minus that of the other; null 0.

        Args:
            locator: its name.
            layers: layer numbers of the scores.
            scores: of every prompt, those that the contrast leaves out included; they may be NaN.
            contrast: the two kinds.
            unit: of the scores.
        """
        kept, first, weights = np.asarray(scores[contrast.kept], dtype=np.float64), contrast.first, contrast.weights
        least = ROUNDING * np.nan_to_num(np.abs(kept)).max(0)
        values = kept[first].mean(0) - kept[~first].mean(0)
        drawn = weighted_mean(kept[first], weights[:, first]) - weighted_mean(kept[~first], weights[:, ~first])
        kinds = tuple(
            Kind(name, *bootstrap_mean(kept[those], weights[:, those]), int(those.sum()))
            for name, those in zip(contrast.names, (first, ~first), strict=True)
        )
        values, drawn = (np.where(np.abs(v) <= least, 0.0, v) for v in (values, drawn))
        return cls(locator, layers, values, drawn, unit, len(contrast), contrast.name, kinds=kinds)

    @classmethod
    def of_auroc(
        cls,
        locator: str,
        layers: tuple[int, ...],
        scores: Float[ndarray, "prompt layer"],
        contrast: Contrast,
        *,
        folds: Int[ndarray, " row"] | None = None,
        share: float = HALF,
    ) -> "Curve":
        """The AUROC of the first kind against the other; null 0.5.

        Args:
            locator: its name.
            layers: layer numbers of the scores.
            scores: of every prompt, higher for the first kind.
            contrast: the two kinds.
            folds: of the kept prompts; compares those of one fold only (see `interp.metrics.auroc`).
            share: of the way to the peak, for the onset.
        """
        columns = scores[contrast.kept].T
        values = np.array([auroc(c, contrast.first, None, folds)[0] for c in columns])
        drawn = np.stack([auroc(c, contrast.first, contrast.weights, folds) for c in columns], axis=1)
        return cls(locator, layers, values, drawn, "AUROC", len(contrast), contrast.name, null=0.5, share=share)

    def onset(self, share: float | None = None) -> Estimate:
        """The first layer at which the curve has come ``share`` of the way from null to its peak.

        Args:
            share: in (0, 1]; the curve's own by default.

        Returns:
            A layer number with its 95 % interval over resampled groups; each resample has a peak of its own. inf,
            "never", for a curve or resample whose peak is not above null: it counts as later than every layer. NaN
            where every layer is NaN.

        Raises:
            UsageError: for a share outside (0, 1].
        """
        share = self.share if share is None else share
        if not 0 < share <= 1:
            raise UsageError(f"{self.locator}: share {share} is outside (0, 1].")
        value, drawn = self._first(self.values[None], share), self._first(self.drawn, share)
        return Estimate(float(value[0]), *layer_interval(drawn), self.n)

    def drawn_onsets(self) -> Float[ndarray, " resample"]:
        """The onset of every resample, at the curve's own share; inf for never."""
        return self._first(self.drawn, self.share)

    @property
    def peak(self) -> Estimate:
        """The layer of the largest value, with its interval; inf or NaN as `onset` is."""
        return self.onset(1.0)

    @property
    def height(self) -> Estimate:
        """The largest value, with an interval that holds at all layers at once, for its layer was chosen by looking.

        See `interp.stats.simultaneous_interval`. Nothing is shown to separate unless ``lo`` is above ``null``.
        """
        if np.isnan(self.values).all():
            return Estimate(float("nan"), float("nan"), float("nan"), self.n)
        best = int(np.nanargmax(self.values))
        lo, hi = simultaneous_interval(self.values, self.drawn)
        return Estimate(float(self.values[best]), float(lo[best]), float(hi[best]), self.n)

    @property
    def interval(self) -> tuple[Float[ndarray, " layer"], Float[ndarray, " layer"]]:
        """Lower and upper ends of the 95 % intervals, each for its own layer."""
        return percentile_interval(self.drawn)

    @property
    def above_last(self) -> tuple[int, ...]:
        """The layers whose value exceeds the last layer's: of an FDV curve, HiddenDetect's "most safety-aware" set."""
        return tuple(layer for layer, value in zip(self.layers, self.values, strict=True) if value > self.values[-1])

    def table(self, *, family: str, position: str) -> pd.DataFrame:
        """One row per kind and layer and one per layer of the contrast, in the columns of a ``layers`` table."""
        curves = [(k.name, k.value, k.lo, k.hi, k.n) for k in self.kinds]
        curves.append((self.contrast, self.values, *self.interval, self.n))
        rows = [
            (self.locator, family, position, name, *cell, n)
            for name, value, lo, hi, n in curves
            for cell in zip(self.layers, value, lo, hi, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))

    def _first(self, curves: Float[ndarray, "curve layer"], share: float) -> Float[ndarray, " curve"]:
        rise = curves - self.null
        best = np.where(np.isnan(rise), -np.inf, rise).max(1)
        place = (rise >= share * best[:, None]).argmax(1)
        first = np.where(best > 0, np.asarray(self.layers, dtype=np.float64)[place], np.inf)
        return np.where(np.isnan(rise).all(1), np.nan, first)
