"""The probes as scikit-learn estimators: one site at a time, for pipelines, searches and comparisons.

The linear ones are the one-site case of the batched solvers, in float64; their mean and scale are folded into
``coef_`` and ``intercept_``, which take states as they are. As everywhere in scikit-learn parameters are kept as given
and checked by ``fit``.
"""

# ruff: noqa: N803, N806 - X is scikit-learn's name

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from torch import Tensor

from interp.metrics import auroc
from probes.classifier import BinaryProbeClassifier, ProbeClassifier
from probes.linear import fit_discriminant, fit_mean_difference
from probes.logistic import fit_logistic
from probes.sweep import PENALTIES, standardised

VALIDATION = 0.25
"""Share of the groups, or rows, that choose the penalty."""
ITERATIONS = 500
TOLERANCE = 1e-5
LEAST_STOPPED = 10
"""Rows of each class from which an MLP keeps some aside to stop early."""


class _ClosedFormProbe(BinaryProbeClassifier):
    def fit(self, X: Any, y: Any) -> "_ClosedFormProbe":
        """Fits the probe.

        Args:
            X: (row, d) finite states.
            y: (row,) two classes.

        Raises:
            ValueError: for states, classes or parameters that can not be used.
        """
        X, codes = self.checked(X, y)
        ready, mean, scale = _ready(X)
        target = _column(codes == 1)
        self.coef_, self.intercept_ = _folded(*self._solved(ready, target, torch.ones_like(target)), mean, scale)
        return self

    @abstractmethod
    def _solved(self, ready: Tensor, target: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
        """Direction and bias for standardised states."""


class MeanDifferenceProbe(_ClosedFormProbe):
    """The direction from the mean of the first class to that of the second, see `probes.linear`.

    The scores are scaled to the log-odds of two Gaussians of the same spread along the direction, which changes
    neither their order nor their sign.

    Attributes:
        classes_: the two classes, ascending.
        coef_: (1, d).
        intercept_: (1,); 0 is midway between the projected means.
    """

    def _solved(self, ready: Tensor, target: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
        direction, bias = fit_mean_difference(ready, target, ones)
        along = ready @ direction
        no, yes = (along[target == k].mean() for k in (0, 1))
        spread = (along - torch.where(target == 1, yes, no)).square().mean()
        odds = (yes - no) / spread if spread > 0 else spread + 1
        return direction * odds, bias * odds


class DiscriminantProbe(_ClosedFormProbe):
    """A linear discriminant with a shrunken covariance, see `probes.linear.fit_discriminant`.

    Attributes:
        classes_: the two classes, ascending.
        coef_: (1, d).
        intercept_: (1,).
    """

    def __init__(self, shrinkage: Any = None) -> None:
        """Shrinkage is in [0, 1]; None takes that of Ledoit and Wolf."""
        self.shrinkage = shrinkage

    def _solved(self, ready: Tensor, target: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
        return fit_discriminant(ready, target, ones, shrinkage=self.shrinkage)


class _PenalisedProbe(ProbeClassifier):
    """Logistic regressions whose common penalty is chosen on rows kept aside, then fitted again on all rows."""

    def __init__(self, penalties: Any = PENALTIES, validation: Any = VALIDATION, random_state: Any = None) -> None:
        """A single penalty is taken as it is.

        Args:
            penalties: L2 penalties per row to choose from, above 0, for states of mean squared norm 1.
            validation: share of the groups, or of the rows of each class, that choose; in (0, 1).
            random_state: seed or generator of the split.
        """
        self.penalties = penalties
        self.validation = validation
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> "_PenalisedProbe":
        """Fits the probe.

        Args:
            X: (row, d) finite states.
            y: (row,) classes.
            groups: (row,) names; a group is never parted by the split that chooses the penalty.

        Raises:
            ValueError: for states, classes or parameters that can not be used.
        """
        X, codes = self.checked(X, y)
        penalties = np.sort(np.asarray(self.penalties, dtype=np.float64))
        if not len(penalties) or penalties[0] <= 0:
            raise ValueError(f"penalties {self.penalties!r}: at least one is needed, and all have to be above 0.")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation {self.validation!r} is no share of the rows between 0 and 1.")
        ready, mean, scale = _ready(X)
        classes = range(len(self.classes_))
        targets = torch.cat([_column(codes == k) for k in (classes if len(classes) > 2 else (1,))], dim=-1)
        self.penalty_ = float(penalties[-1])
        if len(penalties) > 1:
            aside = _aside(codes, groups, self.validation, self.random_state)
            if len(np.unique(codes[~aside])) > 1:
                self.penalty_ = self._choose(ready, targets, aside, penalties)
        found = _fit(ready, targets, np.ones(len(codes), dtype=bool), np.array([self.penalty_]))
        self.coef_, self.intercept_ = _folded(*found, mean, scale)
        return self

    def _choose(self, ready: Tensor, targets: Tensor, aside: Bool[ndarray, " row"], penalties: ndarray) -> float:
        """The penalty with the best mean AUROC of the targets on the rows kept aside; the strongest of equals."""
        directions, biases = _fit(ready, targets, ~aside, penalties)
        scores = (ready @ directions + biases.unsqueeze(1))[0].numpy()[aside]
        hits = (targets[0] > 0.5).numpy()[aside]
        told = hits.any(0) & ~hits.all(0)
        each = np.split(scores, len(penalties), axis=1)
        ratings = [sum(float(auroc(s[:, k], hits[:, k])[0]) for k in np.flatnonzero(told)) for s in each]
        return float(penalties[::-1][int(np.argmax(ratings[::-1]))])


class LogisticProbe(_PenalisedProbe, BinaryProbeClassifier):
    """A logistic regression with an L2 penalty, chosen by the AUROC on rows or groups kept aside.

    Attributes:
        classes_: the two classes, ascending.
        coef_: (1, d).
        intercept_: (1,).
        penalty_: chosen, per row; the strongest where the rows kept aside, or the others, hold one class only.
    """


class PolicyProbe(_PenalisedProbe):
    """Which of several policies, by one logistic regression for each against all the others.

    One penalty serves all; it is chosen by the mean AUROC of the policies on rows or groups kept aside.

    Attributes:
        classes_: the policies, ascending.
        coef_: (class, d); (1, d) for two policies.
        intercept_: (class,); (1,) for two.
        penalty_: chosen, per row.
    """


class MLPProbe(BinaryProbeClassifier):
    """A multi-layer perceptron of one hidden layer on standardised states, stopped early where rows allow it.

    Attributes:
        classes_: the two classes, ascending.
        scaler_: mean and spread of every coordinate.
        network_: the fitted network.
        n_iter_: passes over the rows.
    """

    def __init__(self, hidden: Any = 64, max_iter: Any = 200, random_state: Any = None) -> None:
        """A network to be fitted by Adam.

        Args:
            hidden: units of the hidden layer, at least 1.
            max_iter: most passes over the rows.
            random_state: seed or generator of the weights, the order of the rows, and the rows kept aside.
        """
        self.hidden = hidden
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "MLPProbe":
        """Fits the probe.

        Args:
            X: (row, d) finite states.
            y: (row,) two classes; with ten rows of each and more, a tenth of the rows decides when to stop.

        Raises:
            ValueError: for states or classes that can not be used.
        """
        X, codes = self.checked(X, y)
        self.scaler_ = StandardScaler().fit(X)
        self.network_ = MLPClassifier(
            (self.hidden,),
            learning_rate_init=1e-2,
            early_stopping=bool(np.bincount(codes).min() >= LEAST_STOPPED),
            max_iter=self.max_iter,
            random_state=self.random_state,
        ).fit(self.scaler_.transform(X), codes)
        self.n_iter_ = self.network_.n_iter_
        return self

    def scores(self, X: Float[ndarray, "row d"]) -> Float[ndarray, "row column"]:
        """Log-odds of checked states, in one column."""
        # The network's probabilities end at 1 where the log-odds still rise.
        (into, out), (shift, bias) = self.network_.coefs_, self.network_.intercepts_
        return np.asarray(np.maximum(self.scaler_.transform(X) @ into + shift, 0) @ out + bias)


def _ready(X: Float[ndarray, "row d"]) -> tuple[Tensor, Tensor, Tensor]:
    return standardised(torch.tensor(X)[None])


def _column(target: Bool[ndarray, " row"]) -> Float[Tensor, "1 row 1"]:
    return torch.tensor(target).double()[None, :, None]


def _fit(
    ready: Float[Tensor, "1 row d"], targets: Float[Tensor, "1 row target"], rows: Bool[ndarray, " row"], each: ndarray
) -> tuple[Float[Tensor, "1 d column"], Float[Tensor, "1 column"]]:
    """All targets at the first penalty, then all at the next."""
    penalty = torch.tensor(each * rows.sum()).repeat_interleave(targets.shape[-1])
    weights = _column(rows)
    targets = targets.repeat(1, 1, len(each))
    return fit_logistic(ready, targets, weights, penalty, iterations=ITERATIONS, tolerance=TOLERANCE)


def _folded(
    directions: Float[Tensor, "1 d column"], biases: Float[Tensor, "1 column"], mean: Tensor, scale: Tensor
) -> tuple[Float[ndarray, "column d"], Float[ndarray, " column"]]:
    """Weights and intercepts for states as they are."""
    coef = (directions[0].T / scale[0]).numpy()
    return coef, biases[0].numpy() - coef @ mean[0].numpy()


def _aside(codes: ndarray, groups: Any, share: float, random_state: Any) -> Bool[ndarray, " row"]:
    """The rows that choose: a share of the groups, or of the rows of every class, at least one of each."""
    rng = check_random_state(random_state)
    if groups is None:
        aside = np.zeros(len(codes), dtype=bool)
        for k in np.unique(codes):
            mine = rng.permutation(np.flatnonzero(codes == k))
            aside[mine[: max(1, round(share * len(mine)))]] = True
        return aside
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(group) != len(codes):
        raise ValueError(f"{len(group)} groups were given for {len(codes)} rows.")
    return np.asarray(rng.permutation(len(names))[group] < max(1, round(share * len(names))))
