"""Forwards that begin in the middle end where whole ones do, on the models that can be resumed, and others say no."""

import pytest
import torch

from interp.causal import Patch, Resumable, refusal_log_odds, states_at
from interp.causal.effects import encoded_prompts
from interp.models.continuation import read
from interp.models.hooks import HooksAdapter
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import user_prompt
from tests.models.architectures import model_of
from tests.sights import llava_processor, picture, tiny_llava
from tests.tiny import make_tokenizer, tiny_llama

FAMILY = RefusalFamily("words", ("I", "no way", "we can"))
WIDTH = 6


def text_prompts():
    return [
        user_prompt(f"p{i}", text) for i, text in enumerate(("How do I bake bread?", "Hello there", "Explain locks."))
    ]


def whole(adapter):
    return list(range(adapter.n_layers + 1))


def resumable(adapter, prompts, width=WIDTH):
    layers = whole(adapter)
    states = states_at(adapter, prompts, layers, tuple(range(-width, 0)))
    return Resumable.of(adapter, prompts, states, layers), states


def patches(states, layers, width):
    """Other rows' states at some last tokens of every layer."""
    for layer in layers:
        for places in (1, width // 2, width):
            values = states[:, layer, -places:].roll(1, 0)
            yield Patch(values, layer, tuple(range(-places, 0)))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_patch_does_what_it_does_in_a_whole_forward(name):
    adapter, prompts = HooksAdapter.of_module(model_of(name), make_tokenizer()), text_prompts()
    again, states = resumable(adapter, prompts)
    if again is None:
        assert name == "gemma2"  # some of its layers forget
        return
    for patch in patches(states, whole(adapter), WIDTH):
        found = again.refusal_log_odds(patch, FAMILY)
        expected = refusal_log_odds(adapter, prompts, [FAMILY], [patch])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # What ran in between left nothing behind.
    texts = encoded_prompts(adapter, prompts)
    torch.testing.assert_close(
        read(adapter.model, [text.ids for text in texts]).next_log_probs, again.kept.next_log_probs
    )
    assert not any("forward" in vars(site.module) for site in adapter.sites)


def test_states_wider_than_the_model_are_rounded_as_a_whole_forward_rounds_them():
    adapter, prompts = HooksAdapter.of_module(tiny_llama().bfloat16(), make_tokenizer()), text_prompts()
    again, states = resumable(adapter, prompts)
    assert states.dtype == torch.bfloat16
    for layer in (1, 3):
        patch = Patch(states[:, layer, -2:].float().mean(0, keepdim=True).expand(3, -1, -1), layer, (-2, -1))
        found, expected = again.refusal_log_odds(patch, FAMILY), refusal_log_odds(adapter, prompts, [FAMILY], [patch])
        torch.testing.assert_close(found, expected, atol=0.1, rtol=0.02)


def test_pictures_are_kept_and_not_seen_again(tmp_path):
    adapter = HooksAdapter.of_module(tiny_llava(), llava_processor())
    prompts = [
        user_prompt(f"p{i}", "Describe this scene.", image=picture(tmp_path / f"{i}.png", seed=i)) for i in range(3)
    ]  # fmt: skip
    again, states = resumable(adapter, prompts, width=24)
    assert again is not None
    for patch in patches(states, whole(adapter), 24):
        found = again.refusal_log_odds(patch, FAMILY)
        expected = refusal_log_odds(adapter, prompts, [FAMILY], [patch])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_own_states_give_the_prompts_as_they_were():
    adapter, prompts = HooksAdapter.of_module(tiny_llama(), make_tokenizer()), text_prompts()
    again, states = resumable(adapter, prompts)
    for layer in whole(adapter):
        own = again.under(Patch(states[:, layer], layer, tuple(range(-WIDTH, 0))))
        torch.testing.assert_close(own.next_log_probs, again.kept.next_log_probs, atol=1e-5, rtol=1e-5)


def test_models_that_keep_something_else_are_not_resumed():
    adapter, prompts = HooksAdapter.of_module(model_of("lfm2"), make_tokenizer()), text_prompts()
    assert resumable(adapter, prompts)[0] is None


def test_states_that_are_not_the_prompt_s_own_are_noticed():
    adapter, prompts = HooksAdapter.of_module(tiny_llama(), make_tokenizer()), text_prompts()
    states = states_at(adapter, prompts, whole(adapter), tuple(range(-WIDTH, 0)))
    assert Resumable.of(adapter, prompts, states.roll(1, 0), whole(adapter)) is None


def test_nothing_is_left_behind_by_an_error():
    adapter, prompts = HooksAdapter.of_module(tiny_llama(), make_tokenizer()), text_prompts()
    again, states = resumable(adapter, prompts)
    with pytest.raises(Exception):  # noqa: B017 - whatever torch makes of a wrong width
        again.under(Patch(torch.zeros(3, 2, 7), 2, (-2, -1)))
    assert not any("forward" in vars(site.module) for site in adapter.sites)
    torch.testing.assert_close(states_at(adapter, prompts, [3], (-1,))[:, 0, 0], states[:, 3, -1])
