"""The estimators a probe can be fitted by, on all rows or fold by fold, with log-odds that mean what they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from probes.estimators import DiscriminantProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe
from probes.logistic import fit_logistic
from probes.probe import score_states
from probes.sample import Sample
from probes.sweep import Sweep, youden_threshold

ESTIMATORS = ("logistic", "mean_difference", "discriminant", "mlp")
LEAST_SLOPE = 1e-3
"""What calibration leaves of scores, in units of their spread, where they tell nothing: their order is never turned."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Held-out scores of the probes of all folds.

    Attributes:
        scores: log-odds of a refusal for every row, from the probe of its fold.
        fired: whether they are above the threshold of their fold.
    """

    scores: Float[ndarray, " row"]
    fired: Bool[ndarray, " row"]


def fit(
    estimator: str, states: Float[Tensor, "row d"], refused: Bool[ndarray, " row"], penalty: float, *, seed: int = 0
) -> dict[str, Tensor]:
    """Fits one probe.

    Args:
        estimator: one of `ESTIMATORS`.
        states: residuals as stored.
        refused: what the model did.
        penalty: L2 penalty per row, of a logistic probe.
        seed: of an MLP.

    Returns:
        The tensors of a probe, see `probes.probe.Probe`; they take states as stored.
    """
    made: Any = {
        "logistic": lambda: LogisticProbe((penalty,)),
        "mean_difference": MeanDifferenceProbe,
        "discriminant": DiscriminantProbe,
        "mlp": lambda: MLPProbe(random_state=seed),
    }[estimator]()
    made.fit(states.double().numpy(), refused)
    if estimator == "mlp":
        return _floats(_folded(made.scaler_, *made.network_.coefs_, *made.network_.intercepts_))
    return _floats({"direction": made.coef_[0], "bias": made.intercept_[0]})


def fit_folds(estimator: str, sample: Sample, swept: Sweep, chosen: Int[ndarray, " fold"], *, seed: int = 0) -> Fitted:
    """Scores every row by the probe of its fold, at the layer chosen there.

    Calibration and threshold of a fold come from its validation rows.
    """
    scores, fired = np.zeros(len(sample.rows)), np.zeros(len(sample.rows), dtype=bool)
    for fold, site in enumerate(chosen.tolist()):
        trained, states = sample.folds.trained(fold), sample.states[site]
        if estimator == "logistic":
            direction, bias = (torch.from_numpy(np.asarray(x[site, fold])) for x in (swept.directions, swept.biases))
            tensors = {"direction": direction, "bias": bias}
        else:
            penalty = float(swept.penalties[site, fold])
            tensors = fit(estimator, states[torch.from_numpy(trained)], sample.refused[trained], penalty, seed=seed)
        rows, tested = sample.folds.validated(fold), sample.folds.tested(fold)
        found = _scores(tensors, states)
        slope, shift = calibration(found[rows], sample.refused[rows])
        scores[tested] = slope * found[tested] + shift
        fired[tested] = found[tested] > youden_threshold(found[rows], sample.refused[rows])
    return Fitted(scores, fired)


def fit_whole(
    estimator: str, sample: Sample, site: int, penalty: float, *, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    """Fits a probe on all rows of one layer.

    Its calibration and threshold come from rows that probes of the same recipe, each fitted without one fold, had
    not seen.

    Returns:
        The tensors of the probe, and its threshold.
    """
    states, refused, of = sample.states[site], sample.refused, sample.folds.of
    unseen = np.zeros(len(refused))
    for fold in range(len(sample.folds)):
        rest = of != fold
        tensors = fit(estimator, states[torch.from_numpy(rest)], refused[rest], penalty, seed=seed)
        unseen[~rest] = _scores(tensors, states)[~rest]
    slope, shift = calibration(unseen, refused)
    whole = fit(estimator, states, refused, penalty, seed=seed)
    whole |= {"direction": whole["direction"] * slope, "bias": whole["bias"] * slope + shift}
    return whole, youden_threshold(slope * unseen + shift, refused)


def calibration(scores: Float[ndarray, " row"], refused: Bool[ndarray, " row"]) -> tuple[float, float]:
    """The slope and the shift that make log-odds of scores (Platt 1999, with his targets, which fear no separation).

    Returns:
        A slope above 0; 1 and 0 where the rows hold one behaviour only, or one score.
    """
    yes, no, spread = int(refused.sum()), int((~refused).sum()), float(scores.std())
    if not yes or not no or spread == 0:
        return 1.0, 0.0
    middle = float(scores.mean())
    ready = torch.from_numpy((scores - middle) / spread).float()[None, :, None]
    target = torch.from_numpy(np.where(refused, (yes + 1) / (yes + 2), 1 / (no + 2))).float()[None, :, None]
    slopes, shift = fit_logistic(ready, target, torch.ones_like(target), torch.tensor([1e-3]))
    slope = max(float(slopes), LEAST_SLOPE) / spread
    return slope, float(shift) - slope * middle


def _folded(scaler: Any, into: ndarray, out: ndarray, shift: ndarray, bias: ndarray) -> dict[str, ndarray]:
    """A network that standardises its input, as one that takes it as stored."""
    weight = (into / scaler.scale_[:, None]).T
    return {
        "hidden.weight": weight,
        "hidden.bias": shift - weight @ scaler.mean_,
        "direction": out[:, 0],
        "bias": bias[0],
    }


def _floats(numbers: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(value).float().contiguous() for name, value in numbers.items()}


def _scores(tensors: dict[str, Tensor], states: Float[Tensor, "row d"]) -> Float[ndarray, " row"]:
    return score_states(tensors, states).numpy().astype(np.float64)
