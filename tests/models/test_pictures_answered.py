"""Answers, likelihoods and streams of prompts with pictures, against transformers run the plain way."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from interp.models.continuation import read
from interp.models.encoding import Encoder
from interp.models.family_likelihood import family_mass
from interp.models.generation import respond
from interp.models.hooks import HooksAdapter
from interp.models.opening_states import opening_states
from interp.models.streaming import stream
from interp.models.teacher_forcing import answer_log_probs, answered, divergence
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt, user_prompt
from tests.sights import llava_processor, picture, tiny_llava

ASKED = "Describe this scene."
FAMILY = RefusalFamily("f", ("I can not help", "I will not", "No way"))


@pytest.fixture(scope="module")
def adapter() -> HooksAdapter:
    return HooksAdapter.of_module(tiny_llava(), llava_processor())


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Pictures, captions and text, of different lengths, in no order."""
    folder = tmp_path_factory.mktemp("pictures")
    return [
        user_prompt("a", ASKED + " Say where it is.", image=picture(folder / "a.png", 1)),
        user_prompt("b", ASKED, caption="a kitchen knife"),
        user_prompt("c", ASKED, image=picture(folder / "b.png", 2)),
        user_prompt("d", "How do I bake bread?"),
        user_prompt("e", ASKED, image=picture(folder / "c.png", 3)),
    ]


def plain_inputs(adapter: HooksAdapter, prompt: Prompt, more: Sequence[int] = ()) -> dict[str, Tensor]:
    """What the processor gives for the text written by hand, and some tokens behind it."""
    slot = "<image>\n" if prompt.image else f"{prompt.caption}\n" if prompt.caption else ""
    images = [Image.open(prompt.image).convert("RGB")] if prompt.image else None
    inputs = adapter.processor(text=[f"USER: {slot}{prompt.text} ASSISTANT:"], images=images, return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([list(more)], dtype=torch.long)], 1)
    return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def next_log_probs(adapter: HooksAdapter, prompt: Prompt, more: Sequence[int] = ()) -> Tensor:
    logits: Tensor = adapter.model(**plain_inputs(adapter, prompt, more)).logits[0, -1]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("batch_size", [1, 2, 48])
def test_answers_are_those_of_generate(adapter: HooksAdapter, prompts: list[Prompt], batch_size: int) -> None:
    expected = []
    for prompt in prompts:
        inputs = plain_inputs(adapter, prompt)
        ids = adapter.model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=0)
        new = ids[0, inputs["input_ids"].shape[1] :]
        expected.append(adapter.tokenizer.decode(new, skip_special_tokens=True).strip())
    found = respond(adapter.model, adapter.processor, prompts, max_new_tokens=8, batch_size=batch_size)
    assert found == expected and len(set(expected)) == len(expected)


def test_progress_counts_every_prompt_once(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    seen: list[tuple[int, int]] = []
    respond(
        adapter.model, adapter.processor, prompts, max_new_tokens=1, batch_size=2, progress=lambda *p: seen.append(p)
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_is_said_next_as_texts_grow_and_branch(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    shown = [prompts[0], prompts[2]]
    encoded = Encoder(adapter.processor).encode(shown, ["t_post"])
    texts = read(adapter.model, [e.ids for e in encoded], [e.picture for e in encoded])
    for row, prompt in enumerate(shown):
        assert (texts.next_log_probs[row] - next_log_probs(adapter, prompt)).abs().max() < 1e-5
    grown = texts.grown([1, 0, 1], [20, 21, 22]).grown([0, 2], [30, 31])
    for row, more in enumerate(([20, 30], [22, 31])):
        assert (grown.next_log_probs[row] - next_log_probs(adapter, shown[1], more)).abs().max() < 1e-5


def test_the_likelihood_of_a_family(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    from interp.models.phrase_trie import compile_trie

    found = family_mass(adapter.model, adapter.processor, prompts, [FAMILY], floor=0.0, batch_size=3).found[:, 0]
    for row, prompt in enumerate(prompts):
        expected = 0.0
        for sequence in compile_trie(adapter.tokenizer, FAMILY).sequences:
            parts = [next_log_probs(adapter, prompt, sequence[:k])[token] for k, token in enumerate(sequence)]
            expected += float(torch.stack(parts).double().sum().exp())
        assert found[row] == pytest.approx(expected, rel=1e-3)
    assert len({round(float(p), 12) for p in found}) == len(prompts)


def test_answers_read_back(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    texts = answered(adapter.processor, prompts, ["I bake bread.", "a", "", "the box jumps", "no"], tokens=4)
    for prompt, text in zip(prompts, texts, strict=True):
        (found,) = [answer_log_probs(adapter.model, [text])]
        for k, row in enumerate(found):
            assert (row - next_log_probs(adapter, prompt, text.answer[:k])).abs().max() < 1e-5
    pictured = [texts[0], texts[2], texts[4]]
    together = answer_log_probs(adapter.model, pictured)
    alone = torch.cat([answer_log_probs(adapter.model, [text]) for text in pictured])
    assert (together - alone).abs().max() < 1e-5


def test_divergence_takes_pictures_and_text_together(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    texts = answered(adapter.processor, prompts, ["I bake", "a box", "the", "lazy dog", "no"], tokens=4)

    def usual(batch: Sequence[object]) -> Tensor:
        return answer_log_probs(adapter.model, batch)  # type: ignore[arg-type]

    found = divergence(usual, usual, texts, batch_size=2)
    assert found.kl.abs().max() < 1e-6 and torch.equal(found.loss, found.other_loss)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        steps = [next_log_probs(adapter, prompt, text.answer[:k])[t] for k, t in enumerate(text.answer)]
        assert float(found.loss[row]) == pytest.approx(-float(torch.stack(steps).mean()), rel=1e-4)


def test_a_stream_says_what_is_answered(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    for prompt in prompts[:3]:
        steps = list(stream(adapter, adapter.processor, prompt, layer=2, max_new_tokens=6))
        (whole,) = respond(adapter.model, adapter.processor, [prompt], max_new_tokens=6)
        assert "".join(step.text for step in steps).strip() == whole
        inputs = plain_inputs(adapter, prompt, [step.token for step in steps[:-1]])
        with torch.no_grad():
            hidden = adapter.model(**inputs, output_hidden_states=True).hidden_states[2][0]
        start = hidden.shape[0] - len(steps)
        for k, step in enumerate(steps):
            assert (step.state - hidden[start + k]).abs().max() < 1e-5


def test_states_before_the_tokens_of_an_opening(adapter: HooksAdapter, prompts: list[Prompt]) -> None:
    (asked,) = Encoder(adapter.processor).encode([prompts[0]], ["t_post"])
    contexts = ((), (20,), (20, 21), (22,))
    found = opening_states(adapter, asked.ids, contexts, [2], batch_size=2, picture=asked.picture)
    for state, context in zip(found, contexts, strict=True):
        with torch.no_grad():
            hidden = adapter.model(**plain_inputs(adapter, prompts[0], context), output_hidden_states=True)
        assert (state[0] - hidden.hidden_states[2][0, -1]).abs().max() < 1e-5


def test_a_picture_is_read_again_not_kept(adapter: HooksAdapter, tmp_path: Path) -> None:
    shown = user_prompt("a", ASKED, image=picture(tmp_path / "a.png", 1))
    (one,) = Encoder(adapter.processor).encode([shown], ["t_post"])
    assert one.picture is not None
    assert set(one.picture.pixels()) == {"pixel_values"} and one.picture.asked == len(one.ids)
