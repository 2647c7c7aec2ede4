"""Edits of prompts with pictures: classes of tokens, and the states of one run in the place of another's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from interp.cache.batches import make_batch
from interp.causal import (
    Ablation,
    Addition,
    ClassPatch,
    Patch,
    answers,
    editing,
    encoded_prompts,
    laid,
    refusal_log_odds,
    side_effects,
    states_at,
    states_of,
    transplants,
)
from interp.errors import ModelError, UsageError
from interp.models.generation import respond
from interp.models.hooks import HooksAdapter
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt, user_prompt
from tests.sights import IMAGE_TOKENS, llava_processor, picture, tiny_llava

ASKED = "Describe this scene."
FAMILY = RefusalFamily("f", ("I can not help", "No way"))
LAYERS = (0, 2, 4)


@pytest.fixture(scope="module")
def adapter() -> HooksAdapter:
    return HooksAdapter.of_module(tiny_llava(), llava_processor())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Three pictures with the same question, so that their tokens are the same."""
    folder = tmp_path_factory.mktemp("pictures")
    return [user_prompt(f"i{k}", ASKED, image=picture(folder / f"{k}.png", k)) for k in range(3)]


CAPTIONS = [user_prompt(f"c{k}", ASKED, caption=c) for k, c in enumerate(("knife", "a beer mug", "some wine glass"))]


@torch.no_grad()
def states(adapter: HooksAdapter, prompts: list[Prompt], layer: int) -> Tensor:
    batch = make_batch(encoded_prompts(adapter, prompts), 0)
    return adapter.states(batch, [layer])[:, 0, -1]


def test_all_states_of_the_picture_from_another_are_the_other_run(adapter: HooksAdapter, images: list[Prompt]) -> None:
    """The prompts differ in nothing but the picture: with its states replaced, everything behind is the other's."""
    others = [*images[1:], images[0]]
    (patch,) = transplants(adapter, images, others, [0], at="image", taken="image")
    expected = states(adapter, others, 4)
    with editing(adapter, [patch], encoded_prompts(adapter, images)):
        found = states(adapter, images, 4)
    assert (found - expected).abs().max() < 1e-5
    assert (states(adapter, images, 4) - expected).abs().max() > 1e-2


def test_rows_are_told_by_their_pictures_in_any_order(adapter: HooksAdapter, images: list[Prompt]) -> None:
    own = states_of(adapter, images, [2], "image")
    shifted = ClassPatch(tuple(s[0] + 10 * (k + 1) for k, s in enumerate(own)), 2, "image")
    texts = encoded_prompts(adapter, images)
    with editing(adapter, [shifted], texts):
        batch = make_batch(texts, 0).of_rows([2, 0, 1])
        found = adapter.states(make_batch([texts[2], texts[0]], 0), [4])[:, 0]
        again = adapter.states(batch, [4])[:, 0]
    assert (found - again[:2]).abs().max() < 1e-5
    for row, k in enumerate((2, 0, 1)):
        with editing(adapter, [ClassPatch((shifted.values[k],), 2, "image")], [texts[k]]):
            alone = adapter.states(make_batch([texts[k]], 0), [4])[0, 0]
        assert (again[row] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("at", ["image", "instruction", "t_post", "template"])
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_a_class_patch_writes_every_token_of_the_class_and_no_other(
    adapter: HooksAdapter, images: list[Prompt], at: str, layer: int
) -> None:
    texts = encoded_prompts(adapter, images)
    value = torch.randn(3, len(texts[0].group(at)), adapter.d_model)
    everywhere = tuple(range(-len(texts[0].ids), 0))
    before = states_at(adapter, images, [layer], everywhere)[:, 0]
    with editing(adapter, [ClassPatch(tuple(value), layer, at)], texts):
        after = states_at(adapter, images, [layer], everywhere)[:, 0]
    written = list(texts[0].group(at))
    assert torch.equal(after[:, written], value)
    rest = [i for i in range(len(texts[0].ids)) if i not in written]
    assert (after[:, rest] - before[:, rest]).abs().max() < 1e-5


def test_captions_of_any_length_into_pictures_and_back(adapter: HooksAdapter, images: list[Prompt]) -> None:
    into_images = transplants(adapter, images, CAPTIONS, LAYERS, at="image")
    into_captions = transplants(adapter, CAPTIONS, images, LAYERS, at="caption")
    counts = [len(text.of_class("caption")) for text in encoded_prompts(adapter, CAPTIONS)]
    assert len(set(counts)) == 3
    for patch, back, layer in zip(into_images, into_captions, LAYERS, strict=True):
        assert (patch.layer, back.layer) == (layer, layer)
        assert [len(value) for value in patch.values] == [IMAGE_TOKENS] * 3
        assert [len(value) for value in back.values] == counts
        own = states_of(adapter, CAPTIONS, [layer], "caption")
        assert torch.equal(patch.values[0], laid(own[0][0], IMAGE_TOKENS))
        with editing(adapter, [back], encoded_prompts(adapter, CAPTIONS)):
            after = states_of(adapter, CAPTIONS, [layer], "caption")
        assert all(torch.equal(a[0], v) for a, v in zip(after, back.values, strict=True))


def test_pictures_and_captions_edited_together(adapter: HooksAdapter, images: list[Prompt]) -> None:
    both = [images[0], CAPTIONS[1], images[2]]
    texts = encoded_prompts(adapter, both)
    vector = torch.randn(adapter.d_model)
    edit = Addition(vector, 2, "instruction")
    plain = states_of(adapter, both, [2], "instruction")
    with editing(adapter, [edit], texts):
        edited = states_of(adapter, both, [2], "instruction")
    for before, after in zip(plain, edited, strict=True):
        assert (after - before - vector).abs().max() < 1e-5


def test_a_direction_taken_out_of_the_picture_only(adapter: HooksAdapter, images: list[Prompt]) -> None:
    direction = torch.randn(adapter.d_model)
    with editing(adapter, [Ablation(direction, (1,), "image")], encoded_prompts(adapter, images)):
        inside = states_of(adapter, images, [1], "image")
        outside = states_of(adapter, images, [1], "template")
    unit = direction / direction.norm()
    assert max(float((s @ unit).abs().max()) for s in inside) < 1e-5
    assert min(float((s @ unit).abs().max()) for s in outside) > 1e-2


def test_effects_of_a_transplant(adapter: HooksAdapter, images: list[Prompt]) -> None:
    """With all states of the last block's input replaced the answers are those of the other run."""
    others = [*images[1:], images[0]]
    (patch,) = transplants(adapter, images, others, [0], at="image", taken="image")
    said = answers(adapter, images, tokens=6)
    assert said == respond(adapter.model, adapter.processor, images, max_new_tokens=6)
    assert answers(adapter, images, [patch], tokens=6) == [*said[1:], said[0]] != said
    odds = refusal_log_odds(adapter, images, [FAMILY])
    moved = refusal_log_odds(adapter, images, [FAMILY], [patch])
    assert (moved - odds.roll(-1)).abs().max() < 1e-3 and (moved - odds).abs().min() > 1e-2
    nothing = side_effects(adapter, images, said, transplants(adapter, images, images, [2], at="image", taken="image"))
    something = side_effects(adapter, images, said, [patch])
    assert nothing.kl.abs().max() < 1e-6 and something.kl.min() > 1e-4


def test_patches_at_places_still_work_with_pictures(adapter: HooksAdapter, images: list[Prompt]) -> None:
    values = states_at(adapter, [*images[1:], images[0]], [4], [-1])[:, 0]
    with editing(adapter, [Patch(values, 4, (-1,))], encoded_prompts(adapter, images)):
        assert torch.equal(states_at(adapter, images, [4], [-1])[:, 0], values)


def test_placebos_of_a_class_patch(adapter: HooksAdapter, images: list[Prompt]) -> None:
    (patch,) = transplants(adapter, images, CAPTIONS, [2], at="image")
    own = [s[0] for s in states_of(adapter, images, [2], "image")]
    size = patch.displacement(own)
    moved = patch.placebo(0, own)
    for real, found in zip(size, moved.displacement(own), strict=True):
        assert torch.allclose(real, found, rtol=1e-5)
    assert not torch.allclose(moved.values[0], patch.placebo(1, own).values[0])
    other = patch.shuffled(0)
    assert all(not torch.equal(a, b) for a, b in zip(other.values, patch.values, strict=True))
    back = transplants(adapter, CAPTIONS, images, [2], at="caption")[0]
    assert [len(v) for v in back.shuffled(0).values] == [len(v) for v in back.values]


def test_the_same_tokens_and_no_word_of_the_picture_are_refused(adapter: HooksAdapter, images: list[Prompt]) -> None:
    texts = encoded_prompts(adapter, images)
    (patch,) = transplants(adapter, images, images, [2], at="image", taken="image")
    inputs = adapter.processor(
        text=[f"USER: <image>\n{ASKED} ASSISTANT:"], images=[_open(images[0])], return_tensors="pt"
    )
    with pytest.raises(ModelError, match="not known with which picture"), editing(adapter, [patch], texts):
        adapter.model(**inputs)
    (one,) = transplants(adapter, images[:1], images[1:2], [0], at="image", taken="image")
    with editing(adapter, [one], texts[:1]), torch.no_grad():
        logits = adapter.model(**inputs, output_hidden_states=True).hidden_states[3][0, -1]
    assert (logits - states(adapter, images[1:2], 3)[0]).abs().max() < 1e-5


def _open(prompt: Prompt) -> object:
    from PIL import Image

    return Image.open(str(prompt.image))


def test_what_does_not_fit_is_refused(adapter: HooksAdapter, images: list[Prompt]) -> None:
    texts, value = encoded_prompts(adapter, images), torch.zeros(3, adapter.d_model)
    with pytest.raises(UsageError, match=r"3 states for the 16 tokens of class 'image' of prompt 0"):
        editing(adapter, [ClassPatch((value,) * 3, 0, "image")], texts).__enter__()
    with pytest.raises(UsageError, match=r"1 rows of values for 3 prompts"):
        editing(adapter, [ClassPatch((value,), 0, "image")], texts).__enter__()
    with pytest.raises(UsageError, match=r"prompt 0 has no token of the class 'caption'"):
        editing(adapter, [Addition(value[0], 0, "caption")], texts).__enter__()
    with pytest.raises(UsageError, match=r"one stands there twice"):
        editing(adapter, [ClassPatch((value[:1],) * 2, 0, "t_post")], [texts[0], texts[0]]).__enter__()
    with pytest.raises(UsageError, match=r"at = 'picture' is no class of tokens"):
        Addition(value[0], 0, "picture")
    with pytest.raises(UsageError, match=r"prompt 'c0' has no token of the class 'image'"):
        states_of(adapter, CAPTIONS, [0], "image")
    with pytest.raises(UsageError, match=r"1 prompts to take states from for 3"):
        transplants(adapter, images, images[:1], [0], at="image")


@given(st.integers(1, 40), st.integers(1, 40))
def test_laying_keeps_order_and_misses_nothing(n: int, m: int) -> None:
    found = laid(torch.arange(float(n))[:, None], m)[:, 0].tolist()
    assert found == sorted(found) and len(found) == m
    # A short row is wholly used, and a long one evenly: the nearest middle is never further than half a step.
    assert m < n or set(found) == set(range(n))
    assert all(abs((i + 0.5) / n - (k + 0.5) / m) <= 0.5 / n + 1e-9 for k, i in enumerate(found))
    assert n != m or found == list(range(n))


def test_the_mean_is_laid_in_float32() -> None:
    states = torch.randn(7, 3).bfloat16()
    found = laid(states, 4, "mean")
    assert found.dtype == torch.float32 and torch.equal(found, states.float().mean(0).expand(4, -1))
    with pytest.raises(UsageError, match="'middle'"):
        laid(states, 4, "middle")
    with pytest.raises(UsageError, match="0 states"):
        laid(states[:0], 4)
