"""Locators that read states alone: planted truths are found, nulls are not, and nothing turns on what should not."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses.locators.contrast import Contrast
from analyses.locators.mean_difference import directions, mean_difference, select
from analyses.locators.pair_angle import pair_angle
from analyses.locators.separability import linear_margin, mmd, wasserstein
from interp.errors import NonFinite, UsageError
from tests.analyses.planted_states import LAYERS, PAIRS, WIDTH, contrast, planted, sample_of, twins

LOCATORS = {
    "mean_difference": mean_difference,
    "pair_angle": lambda *given: pair_angle(*given, pairs=2000),
    "pair_angle_middle": lambda *given: pair_angle(*given, pairs=2000, about="middle"),
    "mmd": mmd,
    "wasserstein": wasserstein,
    "linear_margin": linear_margin,
}
EACH = pytest.mark.parametrize("locate", LOCATORS.values(), ids=LOCATORS)


@EACH
@pytest.mark.parametrize("layer", [3, 7])
def test_a_planted_direction_is_found_at_its_layer(locate, layer):
    found = locate(planted(layer, strength=8.0), LAYERS, contrast())
    onset = found.onset()
    assert abs(onset.value - layer) <= 1 and onset.lo <= layer <= onset.hi
    assert onset.hi - onset.lo <= 2
    assert found.height.lo > found.null and found.peak.value >= layer
    below = found.values[:layer]
    assert np.abs(below).max() < 0.4 * found.height.value


@EACH
def test_nulls_are_found_null(locate):
    heights, means = [], []
    for seed in range(8):
        found = locate(planted(seed=100 + seed), LAYERS, contrast(seed=seed))
        heights.append(found.height.lo > found.null)
        means.append(found.values.mean() / found.drawn.std(0).mean())
    assert sum(heights) <= 1
    assert abs(np.mean(means)) < 0.5, "zero on average"


@EACH
def test_shuffled_labels_separate_nothing(locate):
    rng = np.random.default_rng(5)
    labels = [k for _ in range(PAIRS) for k in rng.permutation(["harmful", "harmless"])]
    found = locate(planted(4), LAYERS, Contrast.of(sample_of(labels, twins().groups)))
    assert found.height.lo <= found.null


@EACH
def test_neither_order_nor_size_of_the_states_matters(locate):
    if locate is LOCATORS["pair_angle"]:
        states, scaled = planted(4), planted(4) * 32.0
    else:
        states = planted(4)
        scaled = states * 32.0 + 8.0
    plain = locate(states, LAYERS, contrast())
    assert np.allclose(locate(scaled, LAYERS, contrast()).values, plain.values, atol=1e-4)
    order = np.random.default_rng(1).permutation(2 * PAIRS)
    sample = twins()
    moved = sample_of(sample.labels[order], [sample.groups[i] for i in order])
    found = locate(states[torch.from_numpy(order)], LAYERS, Contrast.of(moved))
    if locate is not wasserstein:  # whose shuffles are drawn row by row
        assert np.allclose(found.values, plain.values, atol=1e-6)


@EACH
def test_one_kind_and_states_that_are_no_states_are_refused(locate):
    with pytest.raises(UsageError, match="80 harmful and 0 harmless"):
        locate(planted(), LAYERS, Contrast.of(sample_of(["harmful"] * 80, twins().groups)))
    with pytest.raises(UsageError, match="states of 80 prompts, but the contrast is of 20"):
        locate(planted(), LAYERS, contrast(10))
    states = planted()
    states[3, 2, 1] = torch.nan
    with pytest.raises(NonFinite, match="layer number 2"):
        locate(states, LAYERS, contrast())
    if locate is not wasserstein:  # which fits nothing
        with pytest.raises(UsageError, match="group"):
            locate(planted(), LAYERS, Contrast.of(sample_of(twins().labels, ["one"] * 80)))


@EACH
def test_equal_states_say_nothing_and_the_rest_stays_itself(locate):
    """As the embedding does at a template token."""
    states = planted(4)
    states[:, 0] = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)) * 0.3
    found = locate(states, LAYERS, contrast())
    assert found.values[0] == 0 and not found.drawn[:, 0].any()
    assert np.allclose(found.values[1:], locate(planted(4), LAYERS, contrast()).values[1:])


@pytest.mark.parametrize("name", [n for n in LOCATORS if n != "pair_angle"])
def test_a_massive_coordinate_changes_nothing_but_the_raw_angle(name):
    massive = 2.0**12
    states = planted(4)
    plain, heavy = (LOCATORS[name](s, LAYERS, contrast()) for s in (states, planted(4, massive=massive)))
    assert np.allclose(plain.values, heavy.values, rtol=2e-3, atol=2e-3)
    raw = pair_angle(planted(4, massive=massive), LAYERS, contrast())
    assert max(k.value.max() for k in raw.kinds) < 1, "all states seem to point the same way"


def test_directions_are_exact_where_float32_is_not():
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(size=(4000, 1, WIDTH)) + 1e5 * (np.arange(WIDTH) == 7)).float()
    kinds = Contrast.of(sample_of(["harmful", "harmless"] * 2000, [f"g{i // 2}" for i in range(4000)], resamples=2))
    exact = states[::2, 0].double().mean(0) - states[1::2, 0].double().mean(0)
    found = directions(states, kinds)
    assert found.dtype == torch.float64 and found.shape == (1, WIDTH)
    assert torch.allclose(found[0], exact, atol=1e-9, rtol=0)
    # numpy sums rows one by one here, as an accumulator over batches does.
    naive = [np.add.accumulate(states[k::2, 0].numpy(), axis=0)[-1] / np.float32(2000) for k in (0, 1)]
    assert abs((naive[0] - naive[1])[7] - exact[7].item()) > 1e-3


def test_held_out_separation_is_that_of_the_population():
    step = 2.0
    states = planted(0, strength=step, pairs=600)
    sample = sample_of(["harmful", "harmless"] * 600, [f"g{i // 2}" for i in range(1200)], resamples=50)
    found = mean_difference(states, LAYERS, Contrast.of(sample))
    # Noise of variance 2 in every coordinate, half of it shared by twins.
    assert found.values.mean() == pytest.approx(step / 2**0.5, abs=0.06)
    assert (found.interval[0] < step / 2**0.5).all() and (found.interval[1] > 1.3).all()
    assert np.allclose(found.kinds[0].value, -found.kinds[1].value, atol=0.2)


def test_more_coordinates_than_prompts_do_not_separate_noise():
    states = torch.randn(40, 4, 300, generator=torch.Generator().manual_seed(0))
    sample = sample_of(["harmful", "harmless"] * 20, [f"g{i // 2}" for i in range(40)])
    for locate in (mean_difference, linear_margin, wasserstein, mmd):
        found = locate(states, (0, 1, 2, 3), Contrast.of(sample))
        assert found.height.lo <= 0, locate


def test_the_discriminant_sees_past_a_loud_coordinate_that_says_nothing():
    states = planted(4, strength=3.0)
    states[..., 5] *= 30
    loud = mean_difference(states, LAYERS, contrast())
    clear = linear_margin(states, LAYERS, contrast())
    assert clear.values[5:].mean() > 2 * loud.values[5:].mean()


def naive_mmd(x, y, groups_x, groups_y):
    rows = np.concatenate([x, y])
    lengths = [np.linalg.norm(a - b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    width = np.median(np.square(lengths))

    def mean(a, b, groups_a, groups_b):
        return np.mean(
            [
                np.exp(-np.sum((p - q) ** 2) / (2 * width))
                for p, g in zip(a, groups_a, strict=True)
                for q, h in zip(b, groups_b, strict=True)
                if g != h
            ]
        )

    near = mean(x, x, groups_x, groups_x) + mean(y, y, groups_y, groups_y)
    return near - 2 * mean(x, y, groups_x, groups_y)


@pytest.mark.parametrize("twinned", [True, False])
def test_mmd_equals_a_double_loop(twinned):
    states = planted(4, pairs=12)
    groups = [f"g{i // 2 if twinned else i:03d}" for i in range(24)]
    sample = sample_of(["harmful", "harmless"] * 12, groups)
    found = mmd(states, LAYERS, Contrast.of(sample))
    for i in (0, 5):
        layer = states[:, i].double().numpy()
        expected = naive_mmd(layer[::2], layer[1::2], groups[::2], groups[1::2])
        assert found.values[i] == pytest.approx(expected, abs=1e-9)
    # A resample is the same loop over rows that are repeated, with the kernel of the whole.
    drawn = sample.weights[0]
    layer = states[:, 5].double().numpy()
    distance = np.square(layer[:, None] - layer[None]).sum(-1)
    kernel = np.exp(-distance / (2 * np.median(distance[np.triu_indices(24, 1)])))
    rows = np.repeat(np.arange(24), drawn.astype(int))

    def mean(a, b):
        return np.mean(
            [kernel[i, j] for i in rows if i % 2 == a for j in rows if j % 2 == b and groups[i] != groups[j]]
        )

    assert found.drawn[0, 5] == pytest.approx(mean(0, 0) + mean(1, 1) - 2 * mean(0, 1), abs=1e-9)


def test_distances_along_a_line_are_scipys():
    from scipy.stats import wasserstein_distance

    from analyses.locators.separability import _contrasts, _distances

    rng = np.random.default_rng(0)
    scores, first = rng.normal(size=30).round(1), rng.random(30) < 0.4
    weights = np.concatenate([np.ones((1, 30)), rng.integers(0, 4, size=(3, 30))]).astype(float)
    found = _distances(scores, _contrasts(weights, first))
    for distance, w in zip(found, weights, strict=True):
        assert distance == pytest.approx(wasserstein_distance(scores[first], scores[~first], w[first], w[~first]))


@given(st.integers(0, 50), st.floats(0.01, 100))
def test_angles_do_not_depend_on_length(seed, size):
    states = planted(2, pairs=6, seed=seed)
    lengths = torch.rand(12, len(LAYERS), 1, generator=torch.Generator().manual_seed(seed)) + 0.5
    sample = sample_of(["harmful", "harmless"] * 6, [f"g{i // 2}" for i in range(12)], resamples=5)
    plain, longer = (pair_angle(s, LAYERS, Contrast.of(sample)) for s in (states, states * lengths * size))
    assert np.allclose(plain.values, longer.values, atol=1e-3)
    assert (np.abs(plain.values) <= 180).all()


def test_angles_of_all_pairs_equal_a_loop_and_pairs_are_of_two_groups():
    states = planted(4, pairs=8)
    sample = sample_of(["harmful", "harmless"] * 8, [f"g{i // 2}" for i in range(16)])
    found = pair_angle(states, LAYERS, Contrast.of(sample), pairs=None)
    x = states[:, 6].double().numpy()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(unit @ unit.T, -1, 1)))
    near = [angle[i, j] for i in range(1, 16, 2) for j in range(i + 2, 16, 2)]
    far = [angle[i, j] for i in range(1, 16, 2) for j in range(0, 16, 2) if i // 2 != j // 2]
    assert [k.n for k in found.kinds] == [len(near), len(far)]
    assert [k.name for k in found.kinds] == ["harmless - harmless", "harmless - harmful"]
    assert found.values[6] == pytest.approx(np.mean(far) - np.mean(near), abs=1e-6)


def test_about_the_harmless_mean_every_angle_is_a_right_one_whatever_separates():
    states = planted(4, massive=200.0, strength=6.0)
    raw, blind, seeing = (pair_angle(states, LAYERS, contrast(), about=a) for a in ("origin", "harmless", "middle"))
    assert raw.kinds[0].value.max() < 10
    assert all(np.allclose(kind.value, 90, atol=4) for kind in blind.kinds)
    assert blind.height.lo <= 0 < 15 < seeing.height.lo and seeing.onset().value == 4


def candidates(**changed):
    rows = [
        {"position": p, "layer": layer, "ablated_refusal": -layer / 10, "kl": 0.01, "steering": 1.0}
        for p in ("t_inst", "t_post")
        for layer in range(11)
    ]
    table = pd.DataFrame(rows)
    for column, (row, value) in changed.items():
        table.loc[row, column] = value
    return table


def test_the_published_filters_keep_the_lowest_refusal_and_say_why_others_go():
    found = select(candidates())
    assert (found.chosen["layer"], found.chosen["position"]) == (7, "t_inst"), "int(0.8 * 10) = 8 is out"
    assert len(found.dropped) == 6 and found.dropped["reason"].str.contains("not below 8").all()
    found = select(candidates(kl=(7, 0.2), steering=(18, -0.5), ablated_refusal=(6, np.nan)))
    assert (found.chosen["layer"], found.chosen["position"]) == (6, "t_post")
    assert found.dropped.loc[7, "reason"] == "KL 0.2 is above 0.1"
    assert found.dropped.loc[18, "reason"] == "steering -0.5 is below 0.0"
    assert found.dropped.loc[6, "reason"] == "ablated_refusal is NaN"
    both = select(candidates(kl=(10, 0.2)), blocks=10).dropped.loc[10, "reason"]
    assert both == "layer 10 is not below 8, 80% of 10 blocks; KL 0.2 is above 0.1"


def test_a_table_in_which_nothing_passes_has_no_choice():
    nothing = select(candidates(), max_kl=0.001)
    assert nothing.chosen is None and len(nothing.dropped) == 22
    empty = select(candidates().iloc[:0])
    assert empty.chosen is None and empty.dropped.empty
    with pytest.raises(UsageError, match="lacks kl, steering"):
        select(candidates().drop(columns=["kl", "steering"]))
