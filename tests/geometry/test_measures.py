import numpy as np
import pytest
import torch

from interp.errors import UsageError
from interp.geometry import Arms, alignment, cka, drift, layer_map, modality_gap, retrieval, subspace_overlap
from interp.geometry.cka import u_centred
from interp.geometry.subspace import leading, overlap
from tests.geometry.planted_arms import LAYERS, WIDTH, identical, mismatched, planted, reordered, rotated


def crossed(image_layer=1, caption_layer=4):
    """Pictures that are aligned with captions of another layer only."""
    arms = planted()
    image = arms.image.clone()
    image[:, image_layer] += 2 * arms.caption[:, caption_layer]
    return Arms(image, arms.caption, arms.concepts, arms.layers)


def constant(arms, layer=0):
    image = arms.image.clone()
    image[:, layer] = image[0, layer]
    return Arms(image, arms.caption, arms.concepts, arms.layers)


@pytest.mark.parametrize("variant", ["raw", "centred"])
def test_the_map_has_the_excess_on_its_diagonal_and_finds_another_layer(variant):
    arms = crossed()
    table = layer_map(arms, variant, resamples=50)
    grid = table.pivot(index="image_layer", columns="caption_layer", values="value")
    excess = alignment(arms, variant, resamples=50, permutations=10).excess
    np.testing.assert_allclose(np.diag(grid), excess.value)
    best = table.loc[table["value"].idxmax()]
    assert (best["image_layer"], best["caption_layer"]) == (1, 4) and best["lo"] > 0.3
    assert (grid.drop(index=1).abs() < 0.1).all().all()


@pytest.mark.parametrize("variant", ["raw", "no_rogue"])
def test_cka_finds_the_layer_and_nothing_where_nothing_is(variant):
    found = cka(planted(aligned=[3], mean=10), variant)
    assert found.value.argmax() == 3 and found.lo[3] > 0.3 and found.p < 0.01
    others = [i for i in LAYERS if i != 3]
    # Debiased: with as many coordinates as concepts a plain CKA of noise is about a half.
    assert (np.abs(found.value[others]) < 0.2).all() and (np.abs(found.floor) < 0.05).all()
    assert (found.lo[others] < 0).all()
    assert cka(mismatched(planted(aligned=[3])), variant).p > 0.05


def test_cka_does_not_mind_rotations_shifts_scales_or_order_and_is_1_for_equal_arms():
    arms = planted(aligned=[3])
    turned = rotated(arms)
    mixed = Arms(4 * turned.image + 3, arms.caption, arms.concepts, arms.layers)
    np.testing.assert_allclose(cka(mixed).value, cka(arms).value, atol=1e-5)
    np.testing.assert_allclose(cka(reordered(arms)).value, cka(arms).value, atol=1e-9)
    np.testing.assert_allclose(cka(identical(arms)).value, 1)


def test_a_rogue_coordinate_is_all_of_cka_until_it_is_taken_out():
    arms = planted(aligned=[3])
    scale = torch.ones(WIDTH)
    scale[0] = 500
    led = Arms(arms.image * scale, arms.caption * scale, arms.concepts, arms.layers)
    assert cka(led, "raw").value[3] != pytest.approx(cka(arms, "raw").value[3], abs=0.02)
    assert cka(led, "no_rogue").value[3] == pytest.approx(cka(arms, "raw").value[3], abs=0.1)


def test_the_hsic_is_the_unbiased_one_of_song():
    rng = np.random.default_rng(0)
    n = 9
    k, q = ((x := rng.normal(size=(n, 4))) @ x.T for _ in range(2))
    a, b = k - np.diag(np.diag(k)), q - np.diag(np.diag(q))
    one = np.ones(n)
    trace, sums = np.trace(a @ b), one @ a @ one * (one @ b @ one) / ((n - 1) * (n - 2))
    song = (trace + sums - 2 / (n - 2) * one @ a @ b @ one) / (n * (n - 3))
    assert (u_centred(k) * u_centred(q)).sum() / (n * (n - 3)) == pytest.approx(song)


@pytest.mark.parametrize("variant", ["raw", "centred"])
def test_retrieval_finds_the_caption_at_its_layer_and_is_at_chance_elsewhere(variant):
    top, mrr = retrieval(planted(aligned=[3]), variant, folds=2)
    candidates = 40 if variant == "raw" else 20
    assert top.floor[0] == pytest.approx(1 / candidates)
    assert mrr.floor[0] == pytest.approx(sum(1 / k for k in range(1, candidates + 1)) / candidates)
    assert top.value[3] > 0.9 and mrr.value[3] >= top.value[3]
    others = [i for i in LAYERS if i != 3]
    assert (top.value[others] < 0.15).all() and (top.lo[others] <= top.floor[others]).all()
    best, _ = retrieval(identical(planted()), variant, folds=2)
    np.testing.assert_allclose(best.value, 1)


def test_equal_cosines_share_their_ranks():
    arms = planted()
    nothing = Arms(torch.zeros_like(arms.image), arms.caption, arms.concepts, arms.layers)
    for profile in retrieval(nothing, "raw"):
        np.testing.assert_allclose(profile.value, profile.floor)


def test_subspaces_of_the_same_concepts_share_more_than_those_of_others_where_planted():
    # Few concepts against the width, so that a half of them spans directions of its own.
    same, excess, ceiling = subspace_overlap(planted(aligned=[3], concepts=20, noise=0.2), dimensions=5)
    assert excess.value.argmax() == 3 and excess.lo[3] > 0
    assert ((excess.lo < 0) | (np.array(LAYERS) == 3)).all()
    np.testing.assert_allclose(same.value - same.floor, excess.value)
    np.testing.assert_allclose(ceiling.floor, 5 / WIDTH)
    for profile in (same, ceiling):
        assert ((profile.value >= 0) & (profile.value <= 1)).all()
    np.testing.assert_allclose(subspace_overlap(identical(planted()))[0].value, 1)


def test_overlap_is_that_of_principal_angles():
    import scipy.linalg

    rng = np.random.default_rng(0)
    one, other = (np.linalg.qr(rng.normal(size=(12, 3)))[0] for _ in range(2))
    angles = scipy.linalg.subspace_angles(one, other)
    assert overlap(torch.from_numpy(one), torch.from_numpy(other)) == pytest.approx((np.cos(angles) ** 2).mean())
    basis = leading(torch.from_numpy(rng.normal(size=(9, 12))), 4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64))


def test_the_gap_is_what_was_planted_and_0_where_there_is_none():
    arms = planted(gap=10, mean=50)
    found = modality_gap(arms)
    image, caption = (arms.by_concept(a[:, 0].double()).numpy() for a in (arms.image, arms.caption))
    spread = np.sqrt((image.var(0, ddof=1).sum() + caption.var(0, ddof=1).sum()) / 2)
    assert found.value[0] == pytest.approx(10 / spread, rel=0.1)
    assert (found.lo < found.value).all() and (found.value < found.hi).all() and (found.floor < 0.5 * found.lo).all()
    # A plain distance of the means of equal populations is above 0: here about a fifth of the spread.
    none = modality_gap(planted())
    assert (none.lo < 0.05).all() and none.value.mean() < 0.15
    np.testing.assert_allclose(modality_gap(rotated(arms)).value, found.value, rtol=1e-4)


def test_drift_is_measured_in_lengths_of_the_direction_beside_random_ones():
    arms = planted(gap=-3)
    direction = torch.zeros(len(LAYERS), WIDTH)
    direction[:, 1] = 6
    direction[5] = 0
    found = drift(arms, direction)
    own, random, share = found.along, found.random, found.share
    assert own.value[:5] == pytest.approx(-0.5, abs=0.12) and (own.hi[:5] < 0).all()
    assert (random.hi[:5] < np.abs(own.value[:5])).all()
    assert (share.value[:5] > 0.85).all() and (share.floor[:5] < 0.15).all()
    for profile in (own, random, share):
        assert np.isnan(profile.value[5])
    # A direction that the gap does not lie along is like a random one.
    each = drift(arms, direction.expand(len(arms.names), -1, -1))
    np.testing.assert_allclose(each.frame()["value"], found.frame()["value"])
    other = drift(arms, direction.roll(3, 1), name="another")
    assert np.median(other.p[:5]) > 0.05 and other.along.measure == "drift along another"
    assert (found.p[:5] < 0.01).all() and np.isnan(found.p[5])
    assert len(found.frame()) == 3 * len(LAYERS)


def test_layers_at_which_an_arm_is_constant_have_no_cka_and_no_subspace():
    arms = constant(planted())
    assert np.isnan(cka(arms).value[0]) and np.isfinite(cka(arms).value[1:]).all()
    for profile in subspace_overlap(arms):
        assert np.isnan(profile.value[0]) and np.isfinite(profile.value[1:]).all()
    still = Arms(constant(arms).image, constant(arms).image, arms.concepts, arms.layers)
    assert np.isnan(modality_gap(still).value[0])


def test_too_little_is_refused():
    few = planted(concepts=4, styles=1)
    with pytest.raises(UsageError, match="CKA needs 5"):
        cka(few)
    with pytest.raises(UsageError, match="centres by itself"):
        cka(planted(), "whitened")
    with pytest.raises(UsageError, match="8 dimensions"):
        subspace_overlap(few)
    with pytest.raises(UsageError, match="one row per layer"):
        drift(few, torch.ones(2, WIDTH))
