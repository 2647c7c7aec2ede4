"""A direction shared by two models transfers, one turned away does not."""

import numpy as np

from interp.metrics import auroc
from probes.splits import Folds
from probes.transfer import transfer
from tests.probes.signals import FROM, planted


def crossed(turned=(0, 0, 7)):
    models = [planted(seed=k, turned=t) for k, t in enumerate(turned)]
    states, refused = [m[0] for m in models], np.stack([m[1] for m in models])
    folds = Folds(("a", "b", "c", "d"), np.arange(refused.shape[1]) // 2 % 4)
    found = transfer(states, refused, np.ones_like(refused), folds, [[0], [1], [2], [0, 1]])
    return found, refused, folds


def test_shared_directions_transfer_and_others_do_not():
    found, refused, folds = crossed()
    value = lambda t, m: auroc(found.scores[t, m], refused[m], folds=folds.of)[0]  # noqa: E731
    assert value(0, 1) > 0.95 and value(1, 0) > 0.95
    assert value(0, 2) < 0.7 and value(3, 2) < 0.7
    assert (found.sites[:3] >= FROM).all()
    assert found.fired[0, 1][refused[1]].mean() > 0.8 > 0.2 > found.fired[0, 1][~refused[1]].mean()


def test_a_model_of_one_behaviour_trains_nothing_but_is_tested():
    models = [planted(seed=k) for k in range(2)]
    refused = np.stack([models[0][1], np.zeros_like(models[1][1])])
    folds = Folds(("a", "b", "c", "d"), np.arange(refused.shape[1]) // 2 % 4)
    found = transfer([m[0] for m in models], refused, np.ones_like(refused), folds, [[0], [1]])
    assert np.isnan(found.scores[1]).all()
    assert np.isfinite(found.scores[0, 1]).all()
