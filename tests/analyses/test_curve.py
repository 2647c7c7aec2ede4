import numpy as np
import pytest

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from interp.errors import UsageError
from interp.metrics import auroc
from interp.study import LAYERS_COLUMNS
from tests.analyses.planted_states import contrast, sample_of, twins

NAN = float("nan")


def curve(values, drawn=None, **options):
    values = np.array(values, dtype=float)
    drawn = np.tile(values, (5, 1)) if drawn is None else np.array(drawn, dtype=float)
    layers = options.pop("layers", tuple(range(len(values))))
    return Curve("mine", layers, values, drawn, "unit", 8, "harmful - harmless", **options)


def test_onset_is_where_the_curve_has_come_its_share_of_the_way_up():
    steps = curve([0, 1, 2, 4, 3], layers=(2, 4, 6, 8, 10))
    assert steps.onset().value == 6 and steps.onset(0.25).value == 4 and steps.onset(1.0).value == 8
    assert steps.peak.value == 8 and steps.height.value == 4
    chance = curve([0.5, 0.6, 0.96, 1.0], null=0.5, share=0.9)
    assert chance.onset().value == 2 and chance.onset(0.15).value == 1
    assert curve([1.0, 2.0, 5.0], null=1.0).onset().value == 2


def test_a_value_below_null_is_not_half_way_to_anything():
    assert curve([-4, -1, 0.2, 1]).onset().value == 3
    assert curve([0.1, 0.6, 0.9], null=0.5).onset().value == 2


def test_what_never_rises_above_null_has_no_onset():
    for values in ([0, 0, 0], [-1, -2, -0.5]):
        found = curve(values)
        assert np.isinf([found.onset().value, found.onset().lo, found.onset().hi, found.peak.value]).all()
        assert found.height.value == max(values)
    flat = curve([0.7, 0.7, 0.7], null=0.5)
    assert flat.onset().value == 0 and flat.peak.value == 0


def test_layers_and_resamples_without_a_value_are_left_out():
    some = curve([NAN, 0, 2, 4], [[NAN, 0, 0, 4], [NAN, NAN, NAN, NAN], [NAN, 0, 3, 4]])
    assert (some.onset().value, some.onset().lo, some.onset().hi) == (2, 2, 3)
    assert some.height.value == 4
    none = curve([NAN, NAN])
    assert np.isnan([none.onset().value, none.onset().lo, none.peak.value, none.height.value]).all()
    assert none.table(family="-", position="t_post")["value"].isna().all()


def test_a_resample_that_never_rises_counts_as_later_than_every_layer():
    drawn = [[0, 0, 4]] * 90 + [[0, 0, -1]] * 10
    found = curve([0, 0, 4], drawn).onset()
    assert (found.value, found.lo, found.hi) == (2, 2, np.inf)


def test_shares_and_layers_that_mean_nothing_are_refused():
    for share in (0.0, 1.5, NAN):
        with pytest.raises(UsageError, match="outside"):
            curve([0, 1]).onset(share)
        with pytest.raises(UsageError, match="outside"):
            curve([0, 1], share=share)
    with pytest.raises(UsageError, match="3 layer numbers for 2 layers"):
        curve([0, 1], layers=(0, 1, 2))


def test_scores_give_the_difference_of_means_and_each_kind():
    rng = np.random.default_rng(0)
    scores, kinds = rng.normal(size=(80, 4)), contrast()
    found = Curve.of_scores("mine", (0, 1, 2, 3), scores, kinds, unit="nats")
    assert np.allclose(found.values, scores[::2].mean(0) - scores[1::2].mean(0))
    assert [k.name for k in found.kinds] == ["harmful", "harmless"] and [k.n for k in found.kinds] == [40, 40]
    assert np.allclose(found.kinds[0].value - found.kinds[1].value, found.values)
    (value, lo, hi), n = twins().difference(scores)
    assert np.allclose(found.values, value) and np.allclose(found.interval, (lo, hi)) and found.n == n
    table = found.table(family="apology", position="t_inst")
    assert tuple(table.columns) == LAYERS_COLUMNS and len(table) == 12
    assert set(table["group"]) == {"harmful", "harmless", "harmful - harmless"}
    assert (table["lo"] <= table["value"]).all() and (table["value"] <= table["hi"]).all()


def test_equal_scores_are_flat_whatever_their_rounding():
    scores = np.full((79, 3), 0.1)
    kinds = Contrast.of(sample_of(["harmful", "harmless"] * 39 + ["harmful"], [str(i) for i in range(79)]))
    found = Curve.of_scores("mine", (0, 1, 2), scores, kinds, unit="nats")
    assert np.isinf(found.onset().value) and not found.drawn.any()


def test_unlabelled_prompts_are_left_out_and_behaviour_can_be_the_contrast():
    labels = ["harmful", "harmless", "unlabelled"] * 20
    sample = sample_of(labels, [str(i) for i in range(60)])
    scores = np.random.default_rng(0).normal(size=(60, 2))
    asked = Curve.of_scores("mine", (0, 1), scores, Contrast.of(sample), unit="nats")
    assert asked.n == 40 and np.allclose(asked.values, scores[::3].mean(0) - scores[1::3].mean(0))
    refused, counted = scores[:, 0] > 0, np.arange(60) < 50
    done = Contrast.between(sample, refused, among=counted)
    found = Curve.of_auroc("mine", (0, 1), scores, done)
    assert found.values[0] == 1 and found.n == 50 and found.contrast == "refused - complied"
    assert found.values[1] == auroc(scores[:50, 1], refused[:50])[0] and found.null == 0.5


def test_one_kind_of_prompts_is_no_contrast():
    with pytest.raises(UsageError, match="4 harmful and 0 harmless"):
        Contrast.of(sample_of(["harmful"] * 4, "abcd"))
    with pytest.raises(UsageError, match="0 refused and 80 complied"):
        Contrast.between(twins(), np.zeros(80, dtype=bool))


def test_the_height_of_the_best_of_many_null_layers_is_seldom_shown():
    shown = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = Curve.of_scores("mine", tuple(range(30)), rng.normal(size=(80, 30)), contrast(seed=seed), unit="sd")
        shown += found.height.lo > found.null
        pointwise = found.interval[0][int(found.values.argmax())]
        assert found.height.lo <= pointwise + 0.02
    assert shown <= 5
