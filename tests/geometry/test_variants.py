import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from interp.geometry.variants import Comparison, rogue_share, shrinkage, whitening
from tests.geometry.planted_arms import planted


@pytest.mark.parametrize(("rows", "width"), [(30, 80), (200, 12)])
def test_shrinkage_and_whitening_are_those_of_ledoit_and_wolf(rows, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, width)) * np.linspace(0.2, 3, width)
    x -= x.mean(0)
    reference = LedoitWolf(assume_centered=True).fit(x)
    states = torch.from_numpy(x)
    assert shrinkage(states @ states.T, width) == pytest.approx(reference.shrinkage_)
    white = whitening(states)(states).numpy()
    np.testing.assert_allclose(white @ white.T, x @ np.linalg.inv(reference.covariance_) @ x.T, atol=1e-6)


def test_what_is_fitted_has_not_seen_what_it_is_tested_on():
    arms = planted(aligned=[0])
    how = Comparison.of(arms, "centred", seed=3)
    image, _ = how.directions(arms, 0)
    inside = np.flatnonzero(how.folds[arms.codes] == 0)
    moved = arms.image.clone()
    moved[inside] += 5
    again, _ = how.directions(type(arms)(moved, arms.caption, arms.concepts, arms.layers), 0)
    # The others were centred by a mean that holds the moved ones; those of the same other fold move alike.
    raw = arms.image[inside, 0].double() + 5 - arms.by_concept(arms.image[:, 0].double())[how.folds != 0].mean(0)
    torch.testing.assert_close(again[inside], raw / raw.norm(dim=-1, keepdim=True))
    assert not torch.allclose(image, again)


def test_only_concepts_of_one_fold_are_rivals():
    how = Comparison.of(planted(concepts=10), "centred", folds=5)
    assert (how.rivals.sum(1) == 1).all() and (how.rivals == how.rivals.T).all()
    assert (Comparison.of(planted(concepts=10), "raw").rivals.sum(1) == 9).all()


def test_the_rogue_coordinate_is_where_it_was_planted():
    arms = planted(rogue=50)
    share = rogue_share(arms.image[:, 0].double(), arms.caption[:, 0].double())
    assert share.argmax() == 0 and share[0] > 0.9 and float(share.sum()) == pytest.approx(1)
    assert not rogue_share(torch.zeros(3, 4), torch.zeros(3, 4)).any()
