import numpy as np
import pytest
import torch

from interp.errors import NonFinite, UsageError
from interp.geometry import VARIANTS, Arms, alignment
from interp.geometry.profile import COLUMNS
from tests.geometry.planted_arms import LAYERS, identical, mismatched, planted, reordered, rotated

QUICK = {"resamples": 200, "permutations": 100}


@pytest.mark.parametrize("variant", VARIANTS)
def test_planted_alignment_is_found_at_its_layer_and_nowhere_else(variant):
    found = alignment(planted(aligned=[3]), variant, **QUICK)
    excess = found.excess
    assert excess.value.argmax() == 3 and excess.lo[3] > 0.3
    others = [i for i in LAYERS if i != 3]
    assert (np.abs(excess.value[others]) < 0.1).all()
    assert excess.p == pytest.approx(1 / 101)
    assert (excess.n == found.matched.n == 40) and set(found.frame().columns) == set(COLUMNS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_identical_arms_attain_all_there_is(variant):
    found = alignment(identical(planted(mean=20)), variant, **QUICK)
    np.testing.assert_allclose(found.matched.value, 1)
    np.testing.assert_allclose(found.attained.value, 1)
    np.testing.assert_allclose(found.excess.value, 1 - found.shuffled.value)
    # Nothing is left of a mean that all share but the error of its estimate, about 1 / n.
    if variant in ("centred", "whitened"):
        assert (np.abs(found.shuffled.value) < 0.05).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_captions_of_other_concepts_leave_no_excess(variant):
    arms = [mismatched(planted(aligned=[2, 3], mean=5, styles=1, seed=i)) for i in range(12)]
    excess = [alignment(one, variant, resamples=100, permutations=40).excess for one in arms]
    assert sum(int((e.lo <= 0).sum()) for e in excess) >= 64  # of 72
    # At layers 2 and 3 the true matches are now in the floor: it is a little below 0 there, by excess / (n - 1).
    assert sum(int((e.hi >= 0).sum()) for e in excess) >= 56
    assert max(np.abs(e.value).max() for e in excess) < 0.15 and np.mean([e.p > 0.05 for e in excess]) > 0.7


def test_the_permutation_p_of_unrelated_arms_is_uniform():
    p = [alignment(planted(seed=i, concepts=12), "centred", seed=i, resamples=2, permutations=39).excess.p
         for i in range(40)]  # fmt: skip
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.1) < 0.25


def test_the_interval_of_the_excess_covers_the_truth():
    whole = alignment(planted(aligned=[1], concepts=800, styles=1), "raw", resamples=2, permutations=1)
    truth = whole.excess.value[1]
    hits = 0
    for seed in range(40):
        excess = alignment(planted(aligned=[1], concepts=25, styles=1, seed=seed + 1), "raw", **QUICK).excess
        hits += excess.lo[1] <= truth <= excess.hi[1]
    assert 33 <= hits <= 40


def test_a_rogue_coordinate_misleads_the_raw_cosine_and_not_the_excess():
    plain, led = planted(aligned=[3]), planted(aligned=[3], rogue=300)
    raw = alignment(led, "raw", **QUICK)
    # Nothing but layer 3 is aligned, and every raw cosine is 1: of pairs, of strangers, within an arm.
    for profile in (raw.matched, raw.shuffled, raw.images, raw.captions):
        assert (profile.value > 0.99).all()
    assert raw.excess.value.argmax() == 3 and (raw.excess.value < 0.01).all()
    for variant in ("centred", "no_rogue", "whitened"):
        honest, there = (alignment(arms, variant, **QUICK).excess for arms in (plain, led))
        assert there.value.argmax() == 3 and there.lo[3] > 0.3
        np.testing.assert_allclose(there.value, honest.value, atol=0.06)


def test_a_gap_between_modalities_hides_alignment_from_the_raw_cosine_alone():
    apart = planted(aligned=[3], gap=200)
    assert alignment(apart, "raw", **QUICK).matched.value[3] < 0.1
    assert alignment(apart, "centred", **QUICK).matched.value[3] > 0.5


@pytest.mark.parametrize("variant", ["raw", "centred", "whitened"])
def test_a_rotation_of_both_arms_changes_nothing(variant):
    arms = planted(aligned=[1], mean=3, gap=2)
    one, other = (alignment(a, variant, **QUICK).frame() for a in (arms, rotated(arms)))
    np.testing.assert_allclose(one["value"], other["value"], atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_the_pairs_and_the_length_of_states_change_nothing(variant):
    arms = planted(aligned=[1], mean=3)
    longer = Arms(arms.image * 7, arms.caption * 7, arms.concepts, arms.layers)
    one = alignment(arms, variant, **QUICK).frame()
    for other in (reordered(arms), longer):
        again = alignment(other, variant, **QUICK).frame()
        np.testing.assert_allclose(again[["value", "lo", "hi"]], one[["value", "lo", "hi"]], atol=1e-6)


def test_the_floor_is_the_mean_over_all_pairs_of_concepts():
    arms = planted(concepts=7, styles=2, mean=4)
    found = alignment(arms, "raw", **QUICK)
    cosine = torch.nn.functional.cosine_similarity(
        arms.image[:, None, 2].double(), arms.caption[None, :, 2].double(), dim=-1
    ).numpy()
    other = np.array(arms.concepts)[:, None] != np.array(arms.concepts)
    assert found.matched.value[2] == pytest.approx(np.diag(cosine).mean())
    assert found.shuffled.value[2] == pytest.approx(cosine[other].mean())
    assert found.excess.floor[2] == pytest.approx(0, abs=0.1)


def test_every_concept_counts_once_however_many_its_pictures():
    arms = planted(aligned=[2], concepts=6, styles=1)
    many = np.array([0] * 50 + [1, 2, 3, 4, 5])
    rows = torch.from_numpy(many)
    repeated = Arms(arms.image[rows], arms.caption[rows], tuple(np.array(arms.concepts)[many]), arms.layers)
    one, other = (alignment(a, "raw", **QUICK).frame() for a in (arms, repeated))
    np.testing.assert_allclose(one[["value", "lo", "hi"]], other[["value", "lo", "hi"]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_of_length_0_and_constant_layers_have_a_cosine_of_0(variant):
    arms = planted()
    image, caption = arms.image.clone(), arms.caption.clone()
    image[:, 0] = 0
    caption[:, 1] = caption[0, 1]
    found = alignment(Arms(image, caption, arms.concepts, arms.layers), variant, **QUICK)
    for profile in (found.matched, found.shuffled, found.excess):
        assert profile.value[0] == 0
        if variant in ("centred", "whitened"):
            assert profile.value[1] == 0
    if variant == "raw":
        # A constant caption may lie nearer to pictures than 0, but to all of them alike.
        assert found.excess.value[1] == pytest.approx(0, abs=1e-12)


def test_what_can_not_be_compared_is_refused():
    arms = planted(concepts=4, styles=1)
    with pytest.raises(UsageError, match="1 concept"):
        arms.only(np.array([True, False, False, False]))
    with pytest.raises(UsageError, match="4 concepts in 3 folds"):
        alignment(arms, "centred", folds=3)
    with pytest.raises(UsageError, match="bare"):
        alignment(arms, "bare")
    with pytest.raises(UsageError, match="same pairs"):
        Arms(arms.image, arms.caption, arms.concepts[:3], arms.layers)
    broken = arms.image.clone()
    broken[2, 4, 1] = torch.nan
    with pytest.raises(NonFinite, match="layer 4 of pair 2"):
        Arms(broken, arms.caption, arms.concepts, arms.layers)
