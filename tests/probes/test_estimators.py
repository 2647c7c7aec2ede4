import warnings

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.estimators import DiscriminantProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe, PolicyProbe
from probes.sweep import PENALTIES, standardised

SEEDED = {"random_state": 0}
PROBES = (
    MeanDifferenceProbe(),
    LogisticProbe(**SEEDED),
    DiscriminantProbe(),
    MLPProbe(**SEEDED),
    PolicyProbe(**SEEDED),
)
BINARY = PROBES[:4]
LINEAR = PROBES[:3]


def planted(rows: int = 200, width: int = 20, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States far from 0 whose means differ by class, and class names."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % classes
    means = rng.normal(size=(classes, width))
    states = 30 + 5 * (means[codes] + rng.normal(size=(rows, width)) * 1.5)
    return states, np.array(["comply", "evade", "refuse", "warn"])[codes]


@parametrize_with_checks(list(PROBES))
def test_scikit_learn_accepts_them(estimator, check) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize("probe", BINARY, ids=lambda p: type(p).__name__)
def test_binary_probes_say_so_and_find_what_is_planted(probe) -> None:
    assert not probe.__sklearn_tags__().classifier_tags.multi_class
    states, names = planted(400)
    probe.set_params(random_state=0) if "random_state" in probe.get_params() else None
    assert probe.fit(states[:200], names[:200]).score(states[200:], names[200:]) > 0.8
    with pytest.raises(ValueError, match="Only binary classification"):
        probe.fit(*planted(classes=3))


@pytest.mark.parametrize("probe", LINEAR, ids=lambda p: type(p).__name__)
def test_scale_and_offset_of_the_states_change_no_score(probe) -> None:
    states, names = planted()
    scores = probe.fit(states, names).decision_function(states)
    np.testing.assert_allclose(scores, states @ probe.coef_[0] + probe.intercept_[0])
    moved = 100 * states - 7
    np.testing.assert_allclose(probe.fit(moved, names).decision_function(moved), scores, atol=1e-5)


def test_logistic_equals_scikit_learn_at_its_penalty() -> None:
    states, names = planted()
    probe = LogisticProbe(random_state=0).fit(states, names)
    assert probe.penalty_ in PENALTIES
    ready = standardised(torch.tensor(states)[None])[0][0].numpy()
    theirs = LogisticRegression(C=1 / (probe.penalty_ * len(states)), tol=1e-10, max_iter=10_000).fit(ready, names)
    np.testing.assert_allclose(probe.decision_function(states), theirs.decision_function(ready), atol=1e-3)


def test_discriminant_equals_scikit_learn() -> None:
    states, names = planted()
    probe = DiscriminantProbe(shrinkage=0.3).fit(states, names)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(states, names)
    np.testing.assert_allclose(probe.coef_, theirs.coef_, rtol=1e-8)
    np.testing.assert_allclose(probe.intercept_, theirs.intercept_, rtol=1e-8)


def test_mean_difference_gives_the_odds_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(20_000) % 2
    states = codes[:, None] * 2.0 + rng.normal(size=(len(codes), 1))
    probe = MeanDifferenceProbe().fit(states, codes)
    # Means 0 and 2, variance 1: log-odds 2 x - 2.
    np.testing.assert_allclose([probe.coef_[0, 0], probe.intercept_[0]], [2, -2], atol=0.1)


def test_noise_takes_a_strong_penalty_and_signal_that_needs_it_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 2
    hidden = rng.normal(size=(300, 40)) * np.geomspace(10, 0.01, 40)
    hidden[:, 30] += 0.2 * codes  # far below the variance of the rest
    assert LogisticProbe(PENALTIES, random_state=0).fit(hidden, codes).penalty_ == min(PENALTIES)
    assert LogisticProbe([3.0], random_state=0).fit(hidden, codes).penalty_ == 3.0


def test_groups_are_not_parted_where_the_penalty_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    import probes.estimators as module

    states, names = planted(120)
    groups = np.array([f"group {i // 6}" for i in range(120)])
    seen = []
    fit = module.fit_logistic

    def watched(states, targets, weights, *args, **kwargs):
        seen.append(weights[0, :, 0].numpy() > 0)
        return fit(states, targets, weights, *args, **kwargs)

    monkeypatch.setattr(module, "fit_logistic", watched)
    LogisticProbe(random_state=0).fit(states, names, groups=groups)
    chosen, refitted = seen
    assert refitted.all()
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert len(set(groups[~chosen])) == 5  # a quarter of 20
    with pytest.raises(ValueError, match="3 groups were given for 120 rows"):
        LogisticProbe().fit(states, names, groups=groups[:3])


def test_a_split_without_two_classes_takes_the_strongest_penalty() -> None:
    states, names = planted(20)
    one_group = LogisticProbe(random_state=0).fit(states, names, groups=["all"] * 20)
    by_class = LogisticProbe(random_state=0).fit(states, names, groups=list(names))
    assert one_group.penalty_ == by_class.penalty_ == max(PENALTIES)
    assert one_group.score(states, names) > 0.8


@pytest.mark.parametrize("wrong", [{"penalties": ()}, {"penalties": (0.0, 1.0)}, {"validation": 1.0}])
def test_parameters_are_checked_by_fit(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"penalties|validation"):
        LogisticProbe(**wrong).fit(*planted())


def test_policies_are_told_apart_with_probabilities() -> None:
    states, names = planted(800, classes=4)
    probe = PolicyProbe(random_state=0).fit(states[:400], names[:400])
    assert probe.score(states[400:], names[400:]) > 0.8
    assert probe.coef_.shape == (4, 20)
    assert probe.decision_function(states).shape == (800, 4)
    shares = probe.predict_proba(states)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (probe.classes_[shares.argmax(1)] == probe.predict(states)).all()


def test_two_policies_are_one_logistic_probe() -> None:
    states, names = planted()
    policies, logistic = (kind(random_state=0).fit(states, names) for kind in (PolicyProbe, LogisticProbe))
    np.testing.assert_array_equal(policies.coef_, logistic.coef_)
    np.testing.assert_array_equal(policies.predict_proba(states), logistic.predict_proba(states))


def test_scores_far_out_keep_their_order() -> None:
    states, names = planted()
    probe = MLPProbe(random_state=0).fit(states, names)
    far = states[:1] + np.array([[100.0], [200.0]]) * (states[1] - states[0])
    near, beyond = abs(probe.decision_function(far))
    assert beyond > near > 40  # where float64 rounds the probability to 0 or 1


def test_they_work_in_pipelines_and_searches() -> None:
    states, names = planted(90)
    pipeline = make_pipeline(StandardScaler(), LogisticProbe(penalties=[1e-2]))
    grid = {"logisticprobe__penalties": [[1e-3], [1e-1]]}
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(3)).fit(states, names, groups=np.arange(90) // 3)
    assert search.best_score_ > 0.8
