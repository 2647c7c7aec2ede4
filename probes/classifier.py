"""What all probes share as scikit-learn classifiers: checks of what they are given, and what they make of scores."""

# ruff: noqa: N803, N806 - X is scikit-learn's name

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data


class ProbeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What all probes share: states and classes are checked, the class with the highest score is predicted."""

    def checked(self, X: Any, y: Any) -> tuple[Float[ndarray, "row d"], ndarray]:
        """What `fit` is given, made sure to be usable; sets ``classes_``.

        Args:
            X: (row, d) finite states.
            y: (row,) classes.

        Returns:
            States in float64, and the number of the class of every row.

        Raises:
            ValueError: for states that are not finite numbers, one class only, or too many.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"only one class, {self.classes_[0]!r}, where a probe tells two apart.")
        multiclass = self.__sklearn_tags__().classifier_tags.multi_class
        if len(self.classes_) > 2 and not multiclass:
            raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(y)}.")
        return X, codes

    def decision_function(self, X: Any) -> ndarray:
        """Log-odds of the second class, or of each class against all others where there are more.

        Args:
            X: (row, d) states.

        Returns:
            (row,), or (row, class) for three classes and more.
        """
        check_is_fitted(self)
        scores = self.scores(validate_data(self, X, reset=False, dtype=np.float64))
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def scores(self, X: Float[ndarray, "row d"]) -> Float[ndarray, "row column"]:
        """Log-odds of checked states: one column for two classes, else one for each."""
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def predict(self, X: Any) -> ndarray:
        """The class with the highest score, of every row."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)])

    def predict_proba(self, X: Any) -> Float[ndarray, "row class"]:
        """The probability of each class; where there are more than two, the odds of each against all, made to sum to 1.

        Args:
            X: (row, d) states.

        Returns:
            In [0, 1], in the order of ``classes_``.
        """
        scores = self.decision_function(X)
        each = -np.logaddexp(0, -(np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores))
        share = np.exp(each - each.max(1, keepdims=True))
        return np.asarray(share / share.sum(1, keepdims=True))


class BinaryProbeClassifier(ProbeClassifier):
    """A probe that tells two classes apart, and refuses more."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
