"""A planted direction is found where it was planted, noise is not, and what is tested was never seen."""

import numpy as np
import pytest
import torch

from interp.errors import UsageError
from interp.metrics import auroc, auroc_estimate
from probes.splits import leave_one_out
from probes.sweep import standardised, sweep, youden_threshold
from tests.probes.signals import FROM, SITES, planted


def test_the_planted_direction_is_found_at_its_layers_only():
    states, refused, groups, categories, direction = planted()
    found = sweep(states, refused, leave_one_out(categories, groups))
    curve = [auroc_estimate(s, refused, groups, found.folds.of) for s in found.scores]
    assert all(c.lo < 0.5 < c.hi or c.value < 0.65 for c in curve[:FROM])
    assert all(c.lo > 0.9 for c in curve[FROM:])
    assert (found.chosen() >= FROM).all()
    assert auroc(found.nested(), refused, folds=found.folds.of)[0] > 0.95
    fitted = found.directions[FROM:].reshape(-1, len(direction))
    cosine = fitted @ direction / np.linalg.norm(fitted, axis=1)
    assert cosine.min() > 0.7
    assert found.nested_fired()[refused].mean() > 0.85 and found.nested_fired()[~refused].mean() < 0.15


def test_directions_score_raw_states_as_the_sweep_did():
    states, refused, groups, categories, _ = planted()
    found = sweep(states, refused, leave_one_out(categories, groups))
    np.testing.assert_allclose(found.score(states, found.folds.of), found.scores, atol=1e-3)


def test_labels_of_the_tested_fold_do_not_reach_its_scores():
    states, refused, groups, categories, _ = planted()
    folds = leave_one_out(categories, groups)
    before = sweep(states, refused, folds)
    flipped = refused ^ folds.tested(0)
    after = sweep(states, flipped, folds)
    np.testing.assert_allclose(after.scores[:, folds.tested(0)], before.scores[:, folds.tested(0)], atol=1e-4)


def test_shuffled_labels_leave_nothing():
    states, refused, groups, categories, _ = planted()
    shuffled = np.random.default_rng(5).permutation(refused)
    found = sweep(states, shuffled, leave_one_out(categories, groups))
    estimate = auroc_estimate(found.nested(), shuffled, groups, found.folds.of)
    assert estimate.lo < 0.5 < estimate.hi


def test_one_behaviour_is_refused_by_name():
    states, refused, groups, categories, _ = planted()
    with pytest.raises(UsageError, match="0 responses were refused and 160 complied"):
        sweep(states, np.zeros_like(refused), leave_one_out(categories, groups))


def test_constant_states_stay_finite():
    ready, mean, scale = standardised(torch.full((SITES, 5, 3), 7.0))
    assert (ready == 0).all() and (scale == 1).all() and (mean == 7).all()


@pytest.mark.parametrize("rows", [3, 48, 1000, 20_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_constant_where_their_mean_is_rounded(rows, dtype):
    row = torch.randn(SITES, 1, 32, generator=torch.Generator().manual_seed(rows), dtype=dtype)
    ready, _, scale = standardised(row.expand(-1, rows, -1).clone())
    assert (ready == 0).all() and (scale == 1).all()


def test_the_threshold_lies_between_the_classes():
    scores, target = np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True])
    assert youden_threshold(scores, target) == 1.5
    assert youden_threshold(scores, np.ones(4, dtype=bool)) == 0.0
