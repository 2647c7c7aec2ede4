import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp.errors import UsageError
from interp.prompts.twins import SPLITS, bundled_twins, subtle_twins

SETS = pytest.mark.parametrize("load", [bundled_twins, subtle_twins])


@SETS
def test_twelve_categories_of_at_least_twenty_pairs(load):
    twins = load()
    pairs = {}
    for prompt in twins:
        pairs.setdefault(prompt.group, {})[prompt.label] = prompt
    assert all(set(pair) == {"harmful", "harmless"} for pair in pairs.values())
    categories = [pair["harmful"].category for pair in pairs.values()]
    assert len(set(categories)) == 12 and min(map(categories.count, categories)) >= 20
    assert all(p.split in SPLITS for p in twins)
    assert len({p.text for p in twins}) == len(twins)


@SETS
def test_the_two_of_a_pair_have_the_same_form(load):
    pairs = {}
    for prompt in load():
        pairs.setdefault(prompt.group, []).append(prompt)
    for one, other in pairs.values():
        assert one.split == other.split and one.category == other.category
        assert one.text[-1] == other.text[-1] or (one.text[-1].isalnum() and other.text[-1].isalnum())
        assert abs(len(one.text) - len(other.text)) <= 0.15 * max(len(one.text), len(other.text))


@SETS
@pytest.mark.parametrize("split", [None, *SPLITS])
def test_length_and_punctuation_do_not_separate_the_labels(load, split):
    twins = load(split)
    features = np.array(
        [[len(p.text), len(p.text.split()), *(p.text.count(c) for c in "?.!,'-")] for p in twins], dtype=float
    )
    harmful = np.array([p.label == "harmful" for p in twins])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = GroupKFold(5)
    scores = cross_val_predict(
        model, features, harmful, groups=[p.group for p in twins], cv=folds, method="predict_proba"
    )[:, 1]
    bound = 0.55 if split is None else 0.6  # a split is small: chance alone moves it
    assert roc_auc_score(harmful, scores) <= bound


def test_unknown_split():
    with pytest.raises(UsageError, match="train, validation, test"):
        bundled_twins("dev")


def test_held_out_prompts_are_the_test_splits_of_both_sets():
    from interp.prompts.hub import load_prompts

    held = load_prompts("held-out")
    assert [p.id for p in held] == [p.id for s in ("twins:test", "subtle:test") for p in load_prompts(s)]
    assert {p.split for p in held} == {"test"}
