import numpy as np
import pytest

from interp.pair_stats import jackknife_interval, max_p, pair_mean, permuted_partners
from interp.stats import group_weights


def test_the_mean_over_pairs_is_that_of_the_pairs_that_count():
    rng = np.random.default_rng(0)
    cells, allowed = rng.normal(size=(3, 6, 6)), rng.random((6, 6)) < 0.5
    np.testing.assert_allclose(pair_mean(cells, np.ones((1, 6)), allowed)[:, 0], cells[:, allowed].mean(1))
    # A group drawn twice counts twice in every pair with another, and in none with itself.
    different = ~np.eye(3, dtype=bool)
    cells = np.arange(9.0).reshape(3, 3)
    drawn = pair_mean(cells, np.array([[2.0, 1.0, 0.0]]), different)
    assert drawn[0] == (cells[0, 1] + cells[1, 0]) / 2
    assert np.isnan(pair_mean(cells, np.array([[3.0, 0.0, 0.0]]), different)[0])


def test_resampled_pairs_spread_as_samples_do():
    rng = np.random.default_rng(0)
    n, different = 80, ~np.eye(80, dtype=bool)
    samples = [rng.normal(1, 1, n) for _ in range(400)]
    truth = [pair_mean(np.outer(x, x), np.ones((1, n)), different)[0] for x in samples]
    weights = group_weights([str(i) for i in range(n)], resamples=200)
    drawn = [pair_mean(np.outer(x, x), weights, different).std() for x in samples[:100]]
    assert np.mean(drawn) == pytest.approx(np.std(truth), rel=0.1)


def test_whole_groups_exchange_partners_inside_their_block():
    groups = np.array([0, 2, 0, 1, 3, 2, 2, 0])
    within = np.array([0, 0, 1, 1])
    partners = permuted_partners(groups, within, permutations=200, seed=0)
    drawn = groups[partners]
    assert (within[drawn] == within[groups]).all()
    for group in range(4):
        assert (drawn[:, groups == group] == drawn[:, groups == group][:, :1]).all()
    assert all(len(set(row)) == 4 for row in drawn)
    same = drawn == groups
    assert (np.tile(np.arange(8), (200, 1))[same] == partners[same]).all() and 0.3 < same.mean() < 0.7


def test_the_largest_of_many_layers_must_beat_the_largest_of_its_permutations():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(99, 20)) * np.linspace(0.1, 10, 20)
    assert max_p(np.zeros(20), noise) > 0.9
    found = np.zeros(20)
    found[0] = 1  # ten times its own spread, yet small beside the noise of others
    assert max_p(found, noise) == 0.01
    p = [_null(rng) for _ in range(200)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)


def _null(rng):
    drawn = rng.normal(size=(40, 5))
    return max_p(drawn[0], drawn[1:])


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=(50, 2))
    left_out = (x.sum(0) - x) / 49
    lo, hi = jackknife_interval(x.mean(0), left_out)
    np.testing.assert_allclose((hi - lo) / 2, 1.959964 * x.std(0, ddof=1) / np.sqrt(50), rtol=1e-6)
