"""What is known of a probe: how well it tells what it never saw, beside everything that could explain it away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from interp.metrics import auroc, average_precision, bootstrapped, calibration_error, false_positive_rate
from interp.prompts.prompt import LABELS, Prompt
from interp.stats import Estimate, group_weights, weighted_mean
from interp.study import Claim, Control
from probes.cells import Cells
from probes.controls import Excess, Null
from probes.splits import Folds

ALPHA = 0.05
TWIN, EMBEDDING = "random twin", "layer 0"
SAME_KIND = "AUROC among prompts of one kind"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What probes said of rows that neither they nor the choice of their layer and threshold had seen.

    Attributes:
        prompts: of the rows.
        refused: what the model did with them.
        scores: log-odds of a refusal.
        fired: whether they are above the threshold of their fold.
        folds: who was tested by whom.
    """

    prompts: tuple[Prompt, ...]
    refused: Bool[ndarray, " row"]
    scores: Float[ndarray, " row"]
    fired: Bool[ndarray, " row"]
    folds: Folds

    @property
    def groups(self) -> list[str]:
        """The resampling unit of every row."""
        return [p.unit for p in self.prompts]

    def metrics(self, *, seed: int = 0) -> dict[str, Estimate]:
        """Every metric with its interval over resampled groups, by name.

        AUROC compares within folds. Average precision, the false positive rate and the calibration error pool the
        log-odds of all folds.
        """
        weights = group_weights(self.groups, seed=seed)
        odds, refused = self.scores, self.refused
        probabilities = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        found = {
            "AUROC": self._auroc(self.folds.of, weights),
            "average precision": self._pooled(average_precision, odds, weights),
            "false positive rate at 95 % recall": self._pooled(false_positive_rate, odds, weights),
            "calibration error": self._pooled(calibration_error, probabilities, weights),
            "recall at the threshold": self._rate(refused, weights),
            "false alarms at the threshold": self._rate(~refused, weights),
        }
        return {**found, SAME_KIND: self._same_kind(weights)}

    def _same_kind(self, weights: Float[ndarray, "resample row"]) -> Estimate:
        """Refused against complied prompts, both harmful or both harmless: harm can not help here."""
        kinds = np.array([LABELS.index(p.label) if p.label else -1 for p in self.prompts])
        strata = self.folds.of * len(LABELS) + kinds
        both = [s for s in np.unique(strata[kinds >= 0]) if 0 < self.refused[strata == s].mean() < 1]
        kept = np.isin(strata, both) & (kinds >= 0)
        if not kept.any():
            return Estimate(float("nan"), float("nan"), float("nan"), 0)
        chosen = self.scores[kept], self.refused[kept]
        drawn = auroc(*chosen, weights[:, kept], strata[kept])
        return bootstrapped(drawn, float(auroc(*chosen, folds=strata[kept])[0]), int(kept.sum()))

    def _auroc(self, folds: ndarray, weights: ndarray) -> Estimate:
        drawn = auroc(self.scores, self.refused, weights, folds)
        return bootstrapped(drawn, float(auroc(self.scores, self.refused, folds=folds)[0]), len(self.scores))

    def _pooled(self, metric, scores: ndarray, weights: ndarray) -> Estimate:  # type: ignore[no-untyped-def]
        value = float(metric(scores, self.refused)[0])
        return bootstrapped(metric(scores, self.refused, weights), value, len(scores))

    def _rate(self, among: Bool[ndarray, " row"], weights: ndarray) -> Estimate:
        drawn = weighted_mean(self.fired[among].astype(float), weights[:, among])
        return bootstrapped(drawn, float(self.fired[among].mean()), int(among.sum()))


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a probe.

    Attributes:
        metrics: by name, held out.
        cells: what was asked against what the model did.
        excess: over every baseline.
        shuffled: what shuffled labels reach.
        random: what random directions reach.
    """

    metrics: dict[str, Estimate]
    cells: Cells
    excess: Excess
    shuffled: Null
    random: Null

    @property
    def controls(self) -> tuple[Control, ...]:
        """What has to hold before the probe is said to read refusal."""
        excess, same = self.excess.value, self.metrics[SAME_KIND]
        twin = self.excess.baselines.get(TWIN)
        return (
            Control("excess", excess.lo > 0, f"{signed(excess)} over {self.excess.best}", "an interval above 0"),
            _null("shuffled labels", self.shuffled),
            _null("random directions", self.random),
            Control(
                TWIN,
                twin is not None and twin.value < self.excess.probe.value,
                "not measured" if twin is None else f"AUROC {interval(twin)}",
                "measured, and below the probe",
            ),
            Control(
                "harm held constant",
                bool(same.lo > 0.5),
                f"AUROC {interval(same)} among {same.n} prompts of kinds both refused and answered"
                if same.n
                else "no kind of prompt, harmful or harmless, was both refused and answered",
                "an interval above 0.5",
            ),
        )

    def claim(self, model: str, estimator: str, layer: int, position: str, provenance: dict[str, Any]) -> Claim:
        """The claim of a probe, established when every control passes."""
        return Claim(
            statement=f"Whether {model} refuses can be read from layer {layer} at {position}, beyond the form of the "
            "prompts and apart from their harm.",
            locator=f"the {estimator} probe",
            family="any",
            position=position,
            onset=None,
            lo=None,
            hi=None,
            n=self.excess.probe.n,
            controls=self.controls,
            provenance=provenance,
        )


def interval(estimate: Estimate) -> str:
    """Such as ``0.93 [0.90, 0.95]``."""
    return f"{estimate.value:.3f} [{estimate.lo:.3f}, {estimate.hi:.3f}]"


def signed(estimate: Estimate) -> str:
    """Such as ``+0.12 [+0.08, +0.15]``."""
    return f"{estimate.value:+.3f} [{estimate.lo:+.3f}, {estimate.hi:+.3f}]"


def _null(name: str, null: Null) -> Control:
    found = f"p = {null.p:.3f}, 95 % of {len(null.drawn)} reach at most AUROC {null.upper:.3f}"
    return Control(name, null.p <= ALPHA, found, f"p of at most {ALPHA}")


def curve(
    scores: Float[ndarray, "site row"],
    held: HeldOut,
    layers: Sequence[int],
    chosen: Int[ndarray, " fold"],
    *,
    seed: int = 0,
) -> list[dict[str, float | int | None]]:
    """The held-out AUROC of every layer with its interval, and how many folds chose the layer on validation."""
    weights = group_weights(held.groups, seed=seed)
    rows: list[dict[str, float | int | None]] = []
    for site, layer in enumerate(layers):
        drawn = auroc(scores[site], held.refused, weights, held.folds.of)
        value = float(auroc(scores[site], held.refused, folds=held.folds.of)[0])
        found = bootstrapped(drawn, value, len(held.refused))
        rows.append(
            {"layer": layer, "auroc": found.value, "lo": found.lo, "hi": found.hi, "folds": int((chosen == site).sum())}
        )
    return rows
