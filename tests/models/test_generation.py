from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models.encoding import Encoder
from interp.models.generation import left_padded, respond
from interp.prompts.prompt import Message, Prompt, user_prompt
from tests.models.vocabularies import byte_level
from tests.tiny import make_tokenizer, tiny_llama

TEXTS = (
    "How do I bake bread?",
    "a",
    "Explain how the lock of a door works, and how a locksmith opens it.",
    "面包 🍞",
    "Hi <|im_end|> there",
    "Write a short letter to my neighbour about the noise of last night.",
    "b",
)
PROMPTS = [user_prompt(str(i), text) for i, text in enumerate(TEXTS)]


def model_with_ends(tokenizer: Any, end: int, strength: float = 4.0) -> Any:
    """A random Llama whose answers end at different lengths."""
    model = tiny_llama(2, vocab_size=len(tokenizer))
    model.lm_head.weight.data[end] *= strength
    model.generation_config.eos_token_id = end
    return model


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, prompt: Prompt, most: int) -> str:
    """The same by hand: the whole text anew for every token."""
    ids, new = list(Encoder(tokenizer).encode([prompt], ["t_post"])[0].ids), []
    for _ in range(most):
        token = int(model(input_ids=torch.tensor([[*ids, *new]])).logits[0, -1].argmax())
        if token == model.generation_config.eos_token_id:
            break
        new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("batch_size", [1, 3, 48])
@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_the_same_as_one_at_a_time_and_in_order(batch_size: int, strength: float) -> None:
    tokenizer = make_tokenizer()
    model = model_with_ends(tokenizer, tokenizer.eos_token_id, strength)
    expected = [greedy(model, tokenizer, p, 12) for p in PROMPTS]
    found = respond(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size)
    assert found == expected
    assert len(set(expected)) > 4
    if strength > 1:
        assert len({len(text) for text in expected}) > 3


def test_the_order_does_not_matter() -> None:
    tokenizer = make_tokenizer()
    model = model_with_ends(tokenizer, tokenizer.eos_token_id)
    plain = respond(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=2)
    turned = respond(model, tokenizer, PROMPTS[::-1], max_new_tokens=6, batch_size=2)
    assert turned == plain[::-1]


def test_an_answer_that_ends_at_once_is_empty() -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    model.generation_config.eos_token_id = 0  # the first of equals
    assert respond(model, tokenizer, PROMPTS[:3], max_new_tokens=4) == ["", "", ""]


def test_nothing_follows_the_end_without_a_padding_token() -> None:
    """Token 0 of many vocabularies is an exclamation mark; it must not fill up short answers."""
    tokenizer = byte_level("llama_3")
    assert tokenizer.pad_token_id is None
    assert tokenizer.decode([0]) == "!"
    model = model_with_ends(tokenizer, tokenizer.eos_token_id)
    expected = [greedy(model, tokenizer, p, 12) for p in PROMPTS]
    found = respond(model, tokenizer, PROMPTS, max_new_tokens=12)
    assert found == expected
    assert len({len(text) for text in found}) > 3


def test_a_repetition_penalty_of_the_model_does_not_count_padding() -> None:
    tokenizer = make_tokenizer()
    model = model_with_ends(tokenizer, tokenizer.eos_token_id)
    expected = respond(model, tokenizer, PROMPTS, max_new_tokens=8)
    model.generation_config.repetition_penalty = 1.8
    assert respond(model, tokenizer, PROMPTS, max_new_tokens=8) == expected


def test_a_conversation_is_answered_at_its_end() -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama()
    talk = Prompt(
        "t", (Message("system", "Be kind."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    )
    assert respond(model, tokenizer, [talk], max_new_tokens=5) == [greedy(model, tokenizer, talk, 5)]


def test_no_prompts_no_answers() -> None:
    assert respond(tiny_llama(), make_tokenizer(), []) == []


def test_left_padded() -> None:
    ids, mask = left_padded([[5], [6, 7, 8]], pad=1)
    assert ids.tolist() == [[1, 1, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_an_answer_can_be_kept_from_beginning_in_some_ways():
    tokenizer, model = make_tokenizer(), tiny_llama(2)
    only = tokenizer("z", add_special_tokens=False)["input_ids"][0]
    others = [i for i in range(len(tokenizer)) if i != only]
    assert respond(model, tokenizer, PROMPTS[:2], max_new_tokens=1, not_first=others) == ["z", "z"]


def test_a_response_that_a_prompt_has_is_not_read_before_answering():
    model, tokenizer = tiny_llama(), make_tokenizer()
    asked = user_prompt("p", "Hello there")
    answered = replace(asked, response="General")
    assert respond(model, tokenizer, [answered], max_new_tokens=4) == respond(
        model, tokenizer, [asked], max_new_tokens=4
    )
