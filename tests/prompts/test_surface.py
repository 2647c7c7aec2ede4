import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.metrics import auroc
from interp.prompts import Message, Prompt, bundled_twins, user_prompt
from interp.prompts.form import PUNCTUATION, length_features, origin, origins, punctuation_features, template_tags
from interp.prompts.surface import SURFACES, surface_scores
from tests.prompts.planted import null, planted

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40)


def labels(prompts):
    return np.array([p.label == "harmful" for p in prompts])


def thirds(prompts):
    fold = np.arange(len(prompts)) // 2 % 3
    return fold, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]


def reached(name, prompts):
    fold, splits = thirds(prompts)
    target = labels(prompts)
    return float(auroc(surface_scores(name, prompts, target, splits), target, folds=fold)[0])


@pytest.mark.parametrize("name", SURFACES)
def test_each_surface_finds_what_is_planted_for_it(name):
    assert reached(name, planted(name)) > 0.95


@pytest.mark.parametrize("name", SURFACES)
def test_nothing_is_found_where_nothing_is(name):
    found = [reached(name, null(120, seed)) for seed in range(4)]
    assert abs(np.mean(found) - 0.5) < 0.1


def test_a_surface_does_not_see_the_others():
    for other in ("length", "template", "image", "dataset"):
        assert reached("image", planted("length")) == 0.5
        assert reached("dataset", planted(other)) == (1.0 if other == "dataset" else 0.5)
    assert abs(reached("length", planted("punctuation")) - 0.5) < 0.12


def test_labels_of_test_prompts_change_nothing():
    prompts, rng = bundled_twins("test").prompts, np.random.default_rng(0)
    order = rng.permutation(len(prompts))
    train, test = order[:200], order[200:]
    target = labels(prompts)
    other = target.copy()
    other[test] = ~other[test]
    for name in SURFACES:
        first = surface_scores(name, prompts, target, [(train, test)])
        np.testing.assert_array_equal(first, surface_scores(name, prompts, other, [(train, test)]))
        assert np.isnan(first[train]).all() and np.isfinite(first[test]).all()


def test_a_score_does_not_depend_on_other_test_prompts():
    prompts = bundled_twins("test").prompts
    target, train = labels(prompts), np.arange(0, 200)
    for name in SURFACES:
        one = surface_scores(name, prompts, target, [(train, np.array([300]))])
        many = surface_scores(name, prompts, target, [(train, np.arange(200, 336))])
        np.testing.assert_allclose(one[300], many[300], atol=1e-9)


def test_training_prompts_of_one_kind_give_constant_scores():
    prompts = planted("length", 40)
    target = labels(prompts)
    bad = np.flatnonzero(target)[:10]
    rest = np.setdiff1d(np.arange(40), bad)
    for name in SURFACES:
        assert set(surface_scores(name, prompts, target, [(bad, rest)])[rest]) == {0.0}
        assert np.isnan(surface_scores(name, prompts, target, [])).all()


def test_an_unknown_surface_is_refused_by_name():
    with pytest.raises(UsageError, match=r"colour.*length, punctuation"):
        surface_scores("colour", null(4), labels(null(4)), [])


@settings(max_examples=25, deadline=None)
@given(st.lists(texts, min_size=4, max_size=12))
def test_any_text_gets_a_finite_score(found):
    prompts = [user_prompt(f"p{i}", text) for i, text in enumerate(found)]
    target = np.arange(len(prompts)) % 2 == 0
    everything = np.arange(len(prompts))
    for name in SURFACES:
        assert np.isfinite(surface_scores(name, prompts, target, [(everything, everything)])).all()


def test_form_is_read_as_a_person_reads_it():
    ask, tell = user_prompt("a", "How, do I (quickly) bake 12 breads?"), user_prompt("b", "Bake bread. Now.")
    np.testing.assert_allclose(np.expm1(length_features([ask, tell])), [[7, 35, 1], [3, 16, 2]])
    marks = dict(zip(PUNCTUATION, punctuation_features([ask])[0], strict=True))
    assert marks["starts with a question word"] == marks["ends with a question mark"] == 1
    assert np.expm1([marks["brackets"], marks["digits"], marks["capitals"]]) == pytest.approx([2, 2, 2])
    assert length_features([user_prompt("c", "怎么烤面包？多久？")])[0, 2] == pytest.approx(np.log1p(2))


def test_the_frame_of_a_conversation_is_its_system_message_and_its_turns():
    turns = (
        Message("system", "Be kind."),
        Message("user", "hi"),
        Message("assistant", "yes"),
        Message("user", "go on"),
    )
    tags = template_tags(Prompt("a", turns))
    assert "system: Be kind." in tags and "turns: system user assistant user" in tags


def test_the_origin_is_what_an_id_says_before_its_number():
    names = ["advbench-0001", "seed_task_12", "7", "cybercrime-001-harmful", "harmful-3", "no number", "a1-b22x"]
    assert [origin(user_prompt(n, "x")) for n in names] == [
        "advbench",
        "seed-task",
        "",
        "cybercrime",
        "",
        "no-number",
        "a1-b",
    ]
    rare = [user_prompt(f"{n}{i}", "x") for i, n in enumerate(["a", "a", "a", "b", "c"])]
    assert origins(rare) == ["a", "a", "a", "", ""]


def test_importing_the_surfaces_loads_no_learner():
    shown = "print('sklearn' in sys.modules, 'torch' in sys.modules)"
    code = f"import sys, interp.prompts.surface, interp.prompts.lint; {shown}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
