"""Metrics agree with scikit-learn on every resample, and mean what they say at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from interp.metrics import (
    auroc,
    auroc_estimate,
    average_precision,
    bootstrapped,
    calibration_error,
    false_positive_rate,
)


def sample(seed, ties=True):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 60))
    scores = rng.integers(0, 8, n).astype(float) if ties else rng.normal(size=n)
    target = rng.random(n) < 0.4
    target[:2] = [True, False]
    weights = rng.integers(0, 4, (5, n)).astype(float)
    weights[:, :2] = 1
    return scores, target, weights


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_resample_equals_scikit_learn_with_sample_weights(seed, ties):
    scores, target, weights = sample(seed, ties)
    for k, w in enumerate(weights):
        assert auroc(scores, target, weights)[k] == pytest.approx(roc_auc_score(target, scores, sample_weight=w))
        expected = average_precision_score(target, scores, sample_weight=w)
        assert average_precision(scores, target, weights)[k] == pytest.approx(expected)
        alarms, hits, _ = roc_curve(target, scores, sample_weight=w, drop_intermediate=False)
        first = (hits >= 0.95 - 1e-9).argmax()
        assert false_positive_rate(scores, target, weights)[k] == pytest.approx(alarms[first])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_folds_compare_pairs_of_one_fold_only(seed):
    scores, target, weights = sample(seed)
    folds = np.random.default_rng(seed).integers(0, 3, len(scores))
    w = weights[0]
    concordant = pairs = 0.0
    for i in np.flatnonzero(target):
        for j in np.flatnonzero(~target):
            if folds[i] == folds[j]:
                pairs += w[i] * w[j]
                concordant += w[i] * w[j] * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    found = auroc(scores, target, weights, folds)[0]
    assert np.isnan(found) if pairs == 0 else found == pytest.approx(concordant / pairs)


def test_a_scale_per_fold_does_not_matter_when_folds_are_given():
    rng = np.random.default_rng(0)
    folds, target = np.arange(60) % 3, rng.random(60) < 0.5
    scores = target + rng.normal(size=60)
    shifted = scores + 100 * folds
    assert auroc(shifted, target, folds=folds) == auroc(scores, target, folds=folds)


def test_one_class_has_no_auroc():
    ones = np.ones(4, dtype=bool)
    assert np.isnan(auroc(np.arange(4.0), ones)[0])
    assert np.isnan(average_precision(np.arange(4.0), ~ones)[0])
    assert np.isnan(false_positive_rate(np.arange(4.0), ~ones)[0])


def test_calibration_error_of_known_probabilities():
    target = np.array([True] * 7 + [False] * 3)
    assert calibration_error(np.full(10, 0.7), target)[0] == pytest.approx(0.0)
    assert calibration_error(np.full(10, 0.2), target)[0] == pytest.approx(0.5)
    assert calibration_error(np.ones(10), np.ones(10, dtype=bool))[0] == 0.0


def test_the_interval_covers_chance_for_noise_and_leaves_it_for_signal():
    rng = np.random.default_rng(1)
    target, groups = rng.random(200) < 0.5, [f"g{i // 2}" for i in range(200)]
    noise = auroc_estimate(rng.normal(size=200), target, groups)
    signal = auroc_estimate(target + rng.normal(size=200), target, groups)
    assert noise.lo < 0.5 < noise.hi
    assert signal.lo > 0.5 and signal.n == 200


def test_resamples_without_a_value_are_left_out_of_the_interval():
    drawn = np.array([np.nan, 1.0, 2.0, 3.0])
    assert bootstrapped(drawn, 2.0, 4).lo == pytest.approx(1.05)
    assert np.isnan(bootstrapped(np.full(3, np.nan), 1.0, 3).lo)
