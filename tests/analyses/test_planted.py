"""Plants are where they are said to be, and patches and locators find them there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analyses.locators.causal_patch import patch_effects
from analyses.panel import Vocabulary
from analyses.plant_edits import LAST
from analyses.planted import Bed, Plant
from interp.causal import editing, states_at, token_ids
from interp.errors import UsageError
from interp.models.hooks import HooksAdapter
from interp.prompts import PromptSet, user_prompt
from interp.prompts.families import load_family
from tests.tiny import make_tokenizer, tiny_llama

BLOCKS = 8
THINGS = ("bread", "a door", "a letter", "noise", "a wizard", "a lock", "a dog", "a box")


@pytest.fixture(scope="module")
def bed():
    prompts = tuple(
        user_prompt(
            f"p{i}",
            f"How do I {verb} {THINGS[i // 2 % 8]} number {i // 2}?",
            label=("harmful", "harmless")[i % 2],
            group=f"g{i // 2}",
        )
        for i in range(48)
        for verb in (("open", "bake")[i % 2],)
    )
    adapter = HooksAdapter.of_module(
        tiny_llama(num_hidden_layers=BLOCKS, initializer_range=0.4, hidden_size=64), make_tokenizer()
    )
    return Bed.of(adapter, PromptSet("planted", prompts))


@pytest.fixture(scope="module")
def words(bed):
    return Vocabulary.of(bed.adapter.tokenizer, load_family("apology"))


@pytest.fixture(scope="module", params=[True, False], ids=["spelled", "hidden"])
def planted(bed, words, request):
    return bed.put(Plant(5, 2.0, spelled=request.param, coverage=0.5, seed=3), words.lexicon.openings)


def test_only_chosen_harmful_prompts_carry_it_and_only_they_are_refused(bed, planted):
    assert planted.carried.sum() == 12 and not (planted.carried & ~bed.harmful).any()
    assert not (planted.refused & ~planted.carried).any() and planted.refused.sum() >= 10


def test_states_change_from_its_layer_on_and_where_it_is_carried(bed, planted):
    moved = (planted.states - bed.states).norm(dim=-1).numpy() / bed.states.norm(dim=-1).numpy()
    assert moved[:, :5].max() < 1e-5
    assert moved[~planted.carried].max() < 1e-5
    assert moved[planted.carried, 5:].min() > 1e-2


def test_the_edits_make_the_same_model(bed, planted, words):
    with editing(bed.adapter, planted.edits, token_ids(bed.adapter, bed.prompts.prompts)):
        states = states_at(bed.adapter, bed.prompts.prompts, bed.layers, LAST)[:, :, 0].float()
    torch.testing.assert_close(states, planted.states, rtol=1e-3, atol=1e-3)
    said = bed.read(words.lexicon.openings, planted.edits)
    np.testing.assert_array_equal(said > 0, planted.refused)


def test_patching_turns_the_model_round_from_the_planted_layer_on(bed, planted, words):
    opening, layers = words.lexicon.openings, tuple(range(1, BLOCKS + 1))
    effects = patch_effects(
        lambda more: bed.read(opening, (*planted.edits, *more)),
        planted.states[:, 1:, None],
        layers,
        LAST,
        harmful=bed.harmful,
        groups=bed.groups,
    )
    for curve in (effects.sufficiency(), effects.necessity()):
        assert curve.onset().value == 5 and curve.height.lo > 0
        assert np.abs(curve.values[:4]).max() < 0.2 * curve.values.max()
    # Strangers of the same kind carry the plant as often, so on average they change nothing on harmless prompts.
    assert abs(effects.sufficiency(placebo=True).values).max() < 0.2 * effects.sufficiency().values.max()


def test_without_a_plant_patching_finds_no_refusal_to_move(bed, words):
    effects = patch_effects(
        lambda more: bed.read(words.lexicon.openings, more),
        bed.states[:, 1:, None],
        bed.layers[1:],
        LAST,
        harmful=bed.harmful,
        groups=bed.groups,
    )
    assert np.abs(effects.sufficiency().values).max() < 1.0


def test_prompts_that_are_no_twins_are_refused(bed):
    states = bed.states[:3, 1:2, None]
    with pytest.raises(UsageError, match="no twin"):
        patch_effects(lambda _: np.zeros(3), states, (1,), LAST, harmful=bed.harmful[:3], groups=bed.groups[:3])


def test_a_part_of_the_prompts_carries_the_same_plant(bed, planted, words):
    rows = bed.drawn(5, seed=1)
    assert rows.sum() == 10 and (bed.drawn(99, seed=1)).all()
    part, own = bed.only(rows), planted.only(rows)
    assert len({p.unit for p in part.prompts}) == 5
    said = part.read(words.lexicon.openings, own.edits)
    np.testing.assert_array_equal(said > 0, planted.refused[rows])


def test_a_signal_is_made_as_strong_as_it_must_be_to_last(bed, words):
    single, double = (Plant(2, strength, spelled=False, coverage=1.0, seed=0) for strength in (1.0, 2.0))
    opening = words.lexicon.openings
    lasting = bed.lasting(single, opening)
    assert bed.put(lasting, opening).took >= 0.8 and replace(lasting, strength=1.0) == single
    assert bed.lasting(double, opening).strength == 2 * lasting.strength
    if lasting.strength > 0.25:
        assert bed.put(replace(lasting, strength=lasting.strength / 8), opening).took < 0.9
