"""Finding a direction on some prompts, choosing it on others and trying it on the rest, on a tiny random model."""

import numpy as np
import pytest
import torch

from analyses.intervention import AFFINE, PUBLISHED, find_direction, parts, try_direction
from analyses.own_words import word_log_odds
from interp.causal import Ablation, Addition, states_at
from interp.models.hooks import HooksAdapter
from interp.prompts.families import load_family
from tests.analyses.test_hearing import twins
from tests.tiny import make_tokenizer, tiny_llama


@pytest.fixture(scope="module")
def model():
    return HooksAdapter.of_module(tiny_llama(), make_tokenizer())


@pytest.fixture(scope="module")
def own():
    return parts(twins(10))


@pytest.fixture(scope="module")
def found(model, own):
    words = model.tokenizer("I", add_special_tokens=False)["input_ids"]
    seen = []
    direction = find_direction(model, model.readout(), own, words, lambda *step: seen.append(step))
    return words, direction, seen


def test_every_layer_is_a_candidate_in_both_ways_and_is_measured(model, own, found):
    words, direction, seen = found
    table = direction.candidates
    assert sorted(set(table["layer"])) == [1, 2, 3] and set(table["edit"]) == {PUBLISHED, AFFINE}
    assert seen[-1] == (3, 3) and np.isfinite(table[["kl", "steering", "ablated_refusal"]].to_numpy()).all()
    assert (table["kl"] >= 0).all()
    # By another path: the mean difference of the fitted part, put into harmless prompts of the part that chooses.
    fitted, harmless = own.fitted, own.chosen.where(label="harmless").prompts
    states = states_at(model, fitted.prompts, [2], (-1,))[:, 0, 0].double()
    harmful = torch.tensor([p.label == "harmful" for p in fitted])
    way = (states[harmful].mean(0) - states[~harmful].mean(0)).float()
    steering = word_log_odds(model, model.readout(), harmless, words, (Addition(way, 2),)).mean()
    assert table.set_index("layer").loc[2, "steering"].tolist() == pytest.approx([steering] * 2, abs=1e-4)


def test_the_choice_is_one_of_the_candidates_and_says_when_it_lies_deep(found):
    _, direction, _ = found
    chosen = direction.selection.chosen
    assert (chosen is None) == (direction.taken_out is None)
    if chosen is not None:
        assert isinstance(direction.taken_out, Ablation)
        passing = direction.candidates[(direction.candidates["kl"] <= 0.1) & (direction.candidates["steering"] >= 0)]
        assert (
            chosen["ablated_refusal"]
            == passing[passing["layer"] < (4 if direction.deep else 3)]["ablated_refusal"].min()
        )
    assert isinstance(direction.put_in, Addition)


def test_the_trial_stands_beside_placebos_of_equal_size(model, own, found):
    _, direction, _ = found
    table = try_direction(model, direction, own.tried, [load_family("apology")], seed=0)
    for name, edit in (("taken out", direction.taken_out), ("put in", direction.put_in)):
        tried = table[table["intervention"] == name]
        assert len(tried) == 0 if edit is None else {"", "random direction"} <= set(tried["placebo"])
    refused = table[table["metric"] == "refused"]
    assert (refused["n"] == 4).all() and refused[["lo", "hi"]].notna().all().all()
