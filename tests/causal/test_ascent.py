"""Forwards that begin where the edit is end where whole ones do, and nothing of it stays behind."""

import pytest
import torch

from interp.causal import Ablation, Addition, Ascent, answers, editing, side_effects, states_at
from interp.models.hooks import HooksAdapter
from interp.prompts.prompt import user_prompt
from tests.models.architectures import model_of
from tests.tiny import make_tokenizer, tiny_llama

ASKED = [user_prompt(f"p{i}", text) for i, text in enumerate(("How do I bake bread?", "Hello there", "Explain locks."))]


class Counting:
    """How often each block of a model really ran."""

    def __init__(self, adapter):
        self.ran = [0] * adapter.n_layers
        for i, site in enumerate(adapter.sites[1:]):
            forward = site.module.forward
            site.module.forward = lambda *args, i=i, forward=forward, **kwargs: self._run(i, forward, args, kwargs)

    def _run(self, i, forward, args, kwargs):
        self.ran[i] += 1
        return forward(*args, **kwargs)


def last_states(adapter, edits=()):
    with editing(adapter, edits):
        return states_at(adapter, ASKED, [adapter.n_layers], (-1,))


def edits_of(adapter, layer, seed=0):
    way = torch.randn(adapter.d_model, generator=torch.Generator().manual_seed(seed))
    return [Addition(way, layer)], [Ablation(way, (layer,), toward=0.5)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "lfm2"])
def test_forwards_under_rising_edits_end_as_whole_ones_do(name):
    adapter = HooksAdapter.of_module(model_of(name), make_tokenizer())
    ascent = Ascent.of(adapter, ASKED)
    assert ascent.resumes
    for layer in [*range(adapter.n_layers + 1), 1]:  # down again too
        for edits in edits_of(adapter, layer):
            expected = last_states(adapter, edits)
            with ascent.below(layer):
                assert torch.equal(last_states(adapter, edits), expected)
    assert torch.equal(last_states(adapter), last_states(HooksAdapter.of_module(model_of(name), make_tokenizer())))


def test_no_block_below_an_edit_runs_twice():
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    ascent = Ascent.of(adapter, ASKED)
    counted = Counting(adapter)
    for layer in range(1, adapter.n_layers + 1):
        for edits in edits_of(adapter, layer):
            with ascent.below(layer):
                last_states(adapter, edits)
    # Block i runs under the edits of layers 1 to i that precede it, and once to get to the layer that it gives.
    assert counted.ran == [1 + 2 * i for i in range(adapter.n_layers)]


def test_side_effects_and_answers_are_those_of_whole_forwards():
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    ascent, said = Ascent.of(adapter, ASKED), ["yes", "no no", "maybe"]
    for layer in (1, 2):
        addition, _ = edits_of(adapter, layer)
        expected = side_effects(adapter, ASKED, said, addition), answers(adapter, ASKED, addition, tokens=4)
        with ascent.below(layer):
            beside, answered = side_effects(adapter, ASKED, said, addition), answers(adapter, ASKED, addition, tokens=4)
        assert torch.equal(beside.kl, expected[0].kl) and beside.kl.max() > 0
        assert answered == expected[1]


def test_a_model_that_can_not_begin_in_the_middle_is_run_whole():
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    first, last = adapter.sites[1].module, adapter.sites[-1].module
    seen, forward, ending = [], first.forward, last.forward
    first.forward = lambda *args, **kwargs: seen.append(1) or forward(*args, **kwargs)
    last.forward = lambda *args, **kwargs: ending(*args, **kwargs) + seen.pop() if seen else ending(*args, **kwargs)
    ascent = Ascent.of(adapter, ASKED)
    assert not ascent.resumes
    whole = last_states(adapter)
    with ascent.below(2):
        assert torch.equal(last_states(adapter), whole)


def test_nothing_is_left_behind_by_an_error():
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    ascent, before = Ascent.of(adapter, ASKED), last_states(adapter)
    with pytest.raises(RuntimeError, match="stop"), ascent.below(2):
        raise RuntimeError("stop")
    assert not any("forward" in vars(site.module) for site in adapter.sites)
    assert torch.equal(last_states(adapter), before)
