"""A tiny model that is made to refuse: what is seen of it, kept, and made into a study."""

import json
from dataclasses import replace

import numpy as np
import pytest

from analyses import tribunal_study
from analyses.family_profiles import difference
from analyses.hearing import hear, some_twins
from analyses.intervention import parts
from analyses.own_words import own_words
from analyses.panel import Vocabulary
from analyses.sample import Sample
from analyses.second_readout import kept_lens, kept_second_reading
from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.errors import UsageError
from interp.models.hooks import HooksAdapter
from interp.prompts import PromptSet, user_prompt
from interp.prompts.families import load_family
from interp.report import write_study
from tests.tiny import make_tokenizer, tiny_llama

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Of course, here is how it is done."


READ = ("apology", "policy")


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
        return hear(cache, twins(), model, families=READ)


def test_what_it_did_and_in_which_words(heard):
    assert heard.family == "apology" and heard.words == ("I",)
    assert heard.refused.sum() == 20 and heard.counted.all()
    assert set(heard.effects) == {"t_post", "the template"}
    assert heard.effects["t_post"].moved.shape == (40, 4)
    assert set(heard.trial["intervention"]) >= {"none", "put in"}
    assert {"layer", "edit", "kl", "steering"} <= set(heard.candidates.columns)


def test_families_are_read_on_prompts_that_nothing_was_learnt_from(heard):
    read = heard.families
    assert read.read.families == READ and read.read.layers == (0, 1, 2, 3, 4)
    assert read.rows.sum() == 20 and read.read.values.shape == (20, 5, 2)
    # The final layer diverges from itself nowhere, and the lens is nearer to it than none is.
    assert np.abs(read.kl[:, -1]).max() < 1e-5 and read.kl[:, 0].mean() < read.kl_logit[:, 0].mean()
    sample = Sample.of(twins(), seed=0)
    table = read.table(sample)
    assert set(table["locator"]) == {"sequence_likelihood", "kl_to_final", "kl_to_final (tuned lens)"}
    assert set(difference(table)["family"]) == set(READ) == set(read.onsets(sample)["family"])


def test_effects_are_kept_and_not_measured_again(heard, model, cache, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("analyses.family_profiles._read", refuse)
    monkeypatch.setattr("analyses.hearing.patch_effects", refuse)
    monkeypatch.setattr("analyses.hearing.find_direction", refuse)
    again = hear(cache, twins(), model, families=READ)
    np.testing.assert_array_equal(again.effects["t_post"].moved, heard.effects["t_post"].moved)
    assert again.chosen == heard.chosen


def test_the_study_says_what_failed_and_is_written(heard, model, cache, tmp_path):
    words = Vocabulary.of(model.tokenizer, load_family("apology"))
    about = {"prompts": "p", "code": "c", "seed": 0}
    lens = kept_lens(cache, model.readout(), [p.unit for p in twins()])
    study = tribunal_study.run(cache, model.readout(), words, twins(), heard, None, lens=lens, provenance=about)
    # The states of a random model know nothing of the refusals put into its mouth.
    assert not any(claim.established for claim in study.claims)
    assert study.headlines[0].startswith("Not established: a layer that decides to refuse, at t_post: failed ")
    assert {"verdicts", "agreement", "accord", "locator_layers", "causal_layers", "trial"} <= set(study.tables)
    drawn = {"locator_heatmap", "family_heatmap", "position_states_heatmap", "position_probe_heatmap", "causal_heatmap"}
    assert drawn <= set(study.figures)
    for name in study.figures:
        assert set(study.drawn_from[name]) <= set(study.tables), f"the table of {name} is one click away"
    verdicts = study.tables["verdicts"].set_index("locator")
    assert verdicts.loc["sequence_likelihood", "family"] == "apology"
    assert "opening_logodds (tuned lens)" in verdicts.index
    assert {"entropy (tuned lens)", "kl_to_final (tuned lens)"} == set(study.tables["tuned_calibration"]["locator"])
    assert any("can not be held against each other" in line or "agree within" in line for line in study.headlines)
    page = write_study(study, tmp_path).read_text("utf-8")
    assert all(f'id="{name}"' in page for name in drawn)
    assert json.loads((tmp_path / "claims.json").read_text())["claims"]


def test_a_model_that_never_refuses_is_not_intervened_on(model, cache, monkeypatch):
    monkeypatch.setattr("analyses.hearing.answers", lambda *_, **__: (ANSWER,) * 40)
    heard = hear(cache, twins(), model, families=())
    assert heard.effects == {} and heard.trial is None and "too little" in heard.chosen
    words = Vocabulary.of(model.tokenizer, load_family("apology"))
    study = tribunal_study.run(cache, model.readout(), words, twins(), heard, None)
    assert study.claims == () and study.headlines[0].startswith("Not established")


def test_a_kept_lens_is_taken_and_a_changed_one_is_fitted_again(cache, model, monkeypatch):
    groups = [p.unit for p in twins()]
    first = kept_lens(cache, model.readout(), groups)
    with monkeypatch.context() as patch:
        patch.setattr("analyses.second_readout.TunedLens.fit", lambda *_, **__: pytest.fail("fitted again"))
        assert (kept_lens(cache, model.readout(), groups).matrices == first.matrices).all()
        with pytest.raises(BaseException, match="fitted again"):
            kept_lens(cache, model.readout(), groups, seed=1)
        assert kept_lens(cache, model.readout(), ["one"] * len(groups)) is None
    reading = kept_second_reading(cache, model.readout(), first, [3, 5])
    with monkeypatch.context() as patch:
        patch.setattr("analyses.second_readout.logit_lens", lambda *_, **__: pytest.fail("read again"))
        again = kept_second_reading(cache, model.readout(), first, [3, 5])
        assert (again.log_prob == reading.log_prob).all() and (again.entropy == reading.entropy).all()
        for changed in ((replace(first, matrices=first.matrices + 1), [3, 5]), (first, [3])):
            with pytest.raises(BaseException, match="read again"):
                kept_second_reading(cache, model.readout(), *changed)


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
