"""A tiny model that is made to refuse: what is seen of it, kept, and made into a study."""

import json

import numpy as np
import pytest

from analyses import tribunal_study
from analyses.hearing import hear, some_twins
from analyses.intervention import parts
from analyses.own_words import own_words
from analyses.panel import Vocabulary
from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.errors import UsageError
from interp.models.hooks import HooksAdapter
from interp.prompts import PromptSet, user_prompt
from interp.prompts.families import load_family
from interp.report import write_study
from tests.tiny import make_tokenizer, tiny_llama

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Of course, here is how it is done."


def twins(count=20):
    texts = (("open", "harmful"), ("bake", "harmless"))
    return PromptSet(
        "twins",
        tuple(
            user_prompt(f"p{i}{label}", f"How do I {verb} the thing number {i}?", label=label, group=f"g{i}")
            for i in range(count)
            for verb, label in texts
        ),
    )


@pytest.fixture(scope="module")
def model():
    return HooksAdapter.of_module(tiny_llama(), make_tokenizer())


@pytest.fixture(scope="module")
def cache(model, tmp_path_factory):
    planned = plan_harvest(model, twins(), Capture(("t_inst", "all_post")))
    return ActivationCache.open(run_harvest(planned, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def heard(model, cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "analyses.answers.respond",
            lambda _m, _t, asked, **_: [REFUSAL if "open" in p.text else ANSWER for p in asked],
        )
        return hear(cache, twins(), model)


def test_what_it_did_and_in_which_words(heard):
    assert heard.family == "apology" and heard.words == ("I",)
    assert heard.refused.sum() == 20 and heard.counted.all()
    assert set(heard.effects) == {"t_post", "the template"}
    assert heard.effects["t_post"].moved.shape == (40, 4)
    assert set(heard.trial["intervention"]) >= {"none", "put in"}
    assert {"layer", "edit", "kl", "steering"} <= set(heard.candidates.columns)


def test_effects_are_kept_and_not_measured_again(heard, model, cache, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("analyses.hearing.patch_effects", refuse)
    monkeypatch.setattr("analyses.hearing.find_direction", refuse)
    again = hear(cache, twins(), model)
    np.testing.assert_array_equal(again.effects["t_post"].moved, heard.effects["t_post"].moved)
    assert again.chosen == heard.chosen


def test_the_study_says_what_failed_and_is_written(heard, model, cache, tmp_path):
    words = Vocabulary.of(model.tokenizer, load_family("apology"))
    about = {"prompts": "p", "code": "c", "seed": 0}
    study = tribunal_study.run(cache, model.readout(), words, twins(), heard, None, provenance=about)
    # The states of a random model know nothing of the refusals put into its mouth.
    assert not any(claim.established for claim in study.claims)
    assert study.headlines[0].startswith("Not established: a layer that decides to refuse, at t_post: failed ")
    assert {"verdicts", "agreement", "locator_layers", "causal_layers", "trial"} <= set(study.tables)
    page = write_study(study, tmp_path).read_text("utf-8")
    assert "causal_heatmap" in page or "Which layers decide" in page
    assert json.loads((tmp_path / "claims.json").read_text())["claims"]


def test_a_model_that_never_refuses_is_not_intervened_on(model, cache, monkeypatch):
    monkeypatch.setattr("analyses.hearing.answers", lambda *_, **__: (ANSWER,) * 40)
    heard = hear(cache, twins(), model)
    assert heard.effects == {} and heard.trial is None and "too little" in heard.chosen
    words = Vocabulary.of(model.tokenizer, load_family("apology"))
    study = tribunal_study.run(cache, model.readout(), words, twins(), heard, None)
    assert study.claims == () and study.headlines[0].startswith("Not established")


def test_own_words_open_refusals_and_not_answers():
    tokenizer = make_tokenizer()
    responses = ["No, I can not.", "No way.", "I can.", "I will."] * 5
    refused = np.array([True, True, False, False] * 5)
    assert [tokenizer.decode([i]) for i in own_words(tokenizer, responses, refused, ~refused)] == ["N"]
    assert own_words(tokenizer, responses, np.zeros(20, dtype=bool), ~refused) == ()


def test_parts_share_no_twin_and_leave_none_in_two():
    own = parts(twins(), seed=1)
    units = [{p.unit for p in part} for part in (own.fitted, own.chosen, own.tried)]
    assert [len(u) for u in units] == [8, 4, 8] and not units[0] & units[1] and not (units[0] | units[1]) & units[2]
    with pytest.raises(UsageError, match="split in three"):
        parts(twins(4))


def test_only_whole_twins_are_drawn():
    prompts = twins(6)
    broken = PromptSet("broken", prompts.prompts[1:])
    assert {p.unit for p in some_twins(broken, 10)} == {f"g{i}" for i in range(1, 6)}
    assert len(some_twins(prompts, 3)) == 6
