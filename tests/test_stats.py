import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.stats import (
    bootstrap_censored_median,
    bootstrap_difference,
    bootstrap_mean,
    censored_median,
    group_codes,
    group_weights,
    max_permutation,
    newcombe,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "lo", "hi"),
    # Brown, Cai & DasGupta (2001) style reference values, computed from the closed form by hand.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (90, 100, 0.8256, 0.9448)],
)
def test_wilson_interval(successes, n, lo, hi):
    estimate = wilson(successes, n)
    assert estimate.value == successes / n
    assert estimate.lo == pytest.approx(lo, abs=5e-4)
    assert estimate.hi == pytest.approx(hi, abs=5e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_value_and_stays_in_range(case):
    estimate = wilson(*case)
    assert 0 <= estimate.lo <= estimate.value + 1e-12 and estimate.value - 1e-12 <= estimate.hi <= 1


def test_wilson_of_nothing_knows_nothing():
    estimate = wilson(0, 0)
    assert np.isnan(estimate.value) and (estimate.lo, estimate.hi) == (0, 1)


@pytest.mark.parametrize(
    ("first", "second", "lo", "hi"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_a_difference_of_proportions_is_as_published(first, second, lo, hi):
    """Newcombe 1998, table II, method 10."""
    found = newcombe(wilson(*first), wilson(*second))
    assert (found.lo, found.hi) == pytest.approx((lo, hi), abs=1e-4) and found.n == first[1] + second[1]


def test_groups_are_drawn_whole_and_with_a_seed():
    groups = ["a", "b", "a", "c", "b", "d"]
    weights = group_weights(groups, resamples=50, seed=3)
    codes = group_codes(groups)
    for code in set(codes):
        columns = weights[:, codes == code]
        assert (columns == columns[:, :1]).all()
    assert (weights[:, [0, 1, 3, 5]].sum(1) == 4).all()
    assert (weights == group_weights(groups, resamples=50, seed=3)).all()
    assert (weights != group_weights(groups, resamples=50, seed=4)).any()


def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = rng.normal(1.0, 2.0, 60)
        _, lo, hi = bootstrap_mean(values, group_weights([str(i) for i in range(60)], resamples=400, seed=trial))
        hits += lo <= 1.0 <= hi
    assert 180 <= hits <= 199


def test_twins_make_a_difference_sharper_because_they_are_drawn_together():
    rng = np.random.default_rng(1)
    topic = rng.normal(0, 5, 50)
    values = np.concatenate([topic + 1, topic]) + rng.normal(0, 0.1, 100)
    first = np.arange(100) < 50
    paired = [str(i % 50) for i in range(100)]
    single = [str(i) for i in range(100)]
    _, lo, hi = bootstrap_difference(values, first, group_weights(paired))
    _, loose_lo, loose_hi = bootstrap_difference(values, first, group_weights(single))
    assert lo < 1 < hi and hi - lo < 0.2 * (loose_hi - loose_lo)


def test_permutation_finds_a_planted_difference_and_nothing_in_noise():
    rng = np.random.default_rng(2)
    first = np.arange(80) % 2 == 0
    groups = [str(i // 2) for i in range(80)]
    noise = rng.normal(size=(80, 30))
    planted = noise.copy()
    planted[first, 17] += 2.0
    assert max_permutation(planted, first, groups) <= 0.01
    p_values = [max_permutation(rng.normal(size=(80, 30)), first, groups, seed=s) for s in range(60)]
    # Under the null a p-value is uniform: about 3 of 60 fall below 0.05; 10 would be a one in a thousand event.
    assert sum(p <= 0.05 for p in p_values) < 10 and np.mean(p_values) > 0.35


def test_permutation_stays_within_twins():
    """A difference that is only between groups is no difference between labels."""
    first = np.arange(40) % 2 == 0
    groups = [str(i // 2) for i in range(40)]
    between = np.repeat(np.arange(20.0), 2)[:, None]
    assert max_permutation(between, first, groups) == 1.0


def test_permutation_without_mixed_groups_shuffles_everything():
    first = np.arange(40) < 20
    values = first.astype(float)[:, None]
    assert max_permutation(values, first, [str(i) for i in range(40)]) <= 0.01


def test_never_counts_as_later_than_every_layer():
    assert censored_median(np.array([3.0, np.inf, 5.0])) == 5.0
    assert censored_median(np.array([3.0, np.inf, np.inf])) == np.inf
    assert np.isnan(censored_median(np.array([])))


def test_censored_median_has_a_censored_interval():
    onset = np.array([4.0] * 26 + [np.inf] * 24)
    estimate = bootstrap_censored_median(onset, group_weights([str(i) for i in range(50)]))
    assert (estimate.value, estimate.lo, estimate.hi, estimate.n) == (4.0, 4.0, np.inf, 50)
    sharp = bootstrap_censored_median(np.full(50, 7.0), group_weights([str(i) for i in range(50)]))
    assert (sharp.lo, sharp.hi) == (7.0, 7.0)
