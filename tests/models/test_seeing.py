"""Every architecture of vision-language models: tokens, states, readout and answers, against transformers itself."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from interp.cache.batches import make_batch
from interp.causal import answers, editing, encoded_prompts, side_effects, states_of, transplants
from interp.errors import UsageError
from interp.models.continuation import read
from interp.models.encoding import Encoded, Encoder
from interp.models.generation import respond
from interp.models.hooks import HooksAdapter
from interp.models.streaming import stream
from interp.models.teacher_forcing import answer_log_probs, answered
from interp.prompts.prompt import Prompt, user_prompt
from tests.models.seeing import ARCHITECTURES, NAMES, model_of, processor_of
from tests.sights import picture

ASKED = ("Describe this scene.", "Describe this scene. More words here.")
SIZES = ((20, 24), (40, 18))
TOLERANCE = 2e-5
# How many tokens the two pictures take, counted by hand from their sizes; mllama looks at them from beside the text.
COUNTS = {
    "llava": (16, 16),  # 16 x 16 px in patches of 4
    "llava_next": (16 + 8 * 7, 16 + 4 * 9),  # the whole, then the unpadded tiles with a line end for every row
    "llava_onevision": (16 + 8 * 7, 16 + 4 * 9),  # 7 and 4 rows: 8 of patches or fewer, where padding is cut off
    "qwen2_vl": (2 * 3, 5 * 2),  # cells of 8 px
    "qwen2_5_vl": (2 * 3, 5 * 2),
    "qwen3_vl": (2 * 3, 5 * 2),
    "gemma3": (4, 4),
    "idefics3": (5 * 4, 3 * 4),  # 2 x 2 and 1 x 2 tiles and the whole, 4 tokens each
    "smolvlm": (5 * 4, 3 * 4),
    "internvl": (1 * 4, 3 * 4),  # one tile, and two with a thumbnail
    "paligemma": (16, 16),
    "mllama": (0, 0),
    "mistral3": (3 * 3, 2 * 4),  # cells of 8 px, each row with a break behind it
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    folder = tmp_path_factory.mktemp("pictures")
    return [user_prompt(f"p{k}", ASKED[k], image=picture(folder / f"{k}.png", k + 1, size=SIZES[k])) for k in range(2)]


def adapter_of(name: str) -> HooksAdapter:
    return HooksAdapter.of_module(model_of(name), processor_of(name))


def encoded(name: str, prompts: Sequence[Prompt]) -> list[Encoded]:
    positions = ["t_inst", "t_post"] if name == "mllama" else ["image_mean", "image_last", "t_inst", "t_post"]
    return Encoder(processor_of(name)).encode(prompts, positions)


def plain_inputs(name: str, prompt: Prompt, more: Sequence[int] = ()) -> dict[str, Any]:
    """What the processor gives for the text written by hand, and what follows it, kinds and masks with it."""
    slot = ARCHITECTURES[name].slot if prompt.image else f"{prompt.caption}\n" if prompt.caption else ""
    text = f"<|im_start|>user\n{slot}{prompt.text}<|im_end|>\n<|im_start|>assistant\n"
    text = text if ARCHITECTURES[name].template else f"<image>{prompt.text}"
    images = [[Image.open(prompt.image)]] if prompt.image else None
    flat = {"images": images[0] if "qwen" in name or "l_" in name else images} if images else {}
    inputs = dict(processor_of(name)(text=[text], return_tensors="pt", **flat))
    inputs.pop("labels", None)
    n, new = len(more), torch.tensor([list(more)], dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], new], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for kinds, value in (("mm_token_type_ids", 0), ("token_type_ids", int(name == "paligemma"))):
        if kinds in inputs:
            inputs[kinds] = torch.cat([inputs[kinds], torch.full((1, n), value)], 1)
    if "cross_attention_mask" in inputs:
        last = inputs["cross_attention_mask"][:, -1:].expand(-1, n, -1, -1)
        inputs["cross_attention_mask"] = torch.cat([inputs["cross_attention_mask"], last], 1)
    return inputs


def image_token(name: str) -> int:
    return int(processor_of(name).tokenizer.convert_tokens_to_ids(ARCHITECTURES[name].image))


@torch.no_grad()
def plain(name: str, prompt: Prompt, more: Sequence[int] = ()) -> Any:
    found = model_of(name)(**plain_inputs(name, prompt, more), output_hidden_states=True)
    if getattr(model_of(name).base_model, "rope_deltas", None) is not None:
        model_of(name).base_model.rope_deltas = None
    return found


def next_log_probs(name: str, prompt: Prompt, more: Sequence[int] = ()) -> Tensor:
    logits: Tensor = plain(name, prompt, more).logits[0, -1]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_places_of_pictures(name: str, prompts: list[Prompt]) -> None:
    image = image_token(name)
    for prompt, one, count in zip(prompts, encoded(name, prompts), COUNTS[name], strict=True):
        assert list(one.ids) == plain_inputs(name, prompt)["input_ids"][0].tolist()
        places = one.of_class("image")
        assert len(places) == count
        if count:
            assert places == tuple(i for i, token in enumerate(one.ids) if token == image)
            assert places[-1] < min(one.of_class("instruction"))
        assert processor_of(name).tokenizer.decode([one.ids[i] for i in one.of_class("instruction")]) == prompt.text


@pytest.mark.parametrize("name", NAMES)
def test_states_are_the_models_own(name: str, prompts: list[Prompt]) -> None:
    adapter, ones = adapter_of(name), encoded(name, prompts)
    layers = range(adapter.n_layers + 1)
    together = adapter.states(make_batch(ones, 0), layers)
    for row, (prompt, one) in enumerate(zip(prompts, ones, strict=True)):
        hidden = plain(name, prompt).hidden_states
        for layer in range(adapter.n_layers):
            for column, (position, at) in enumerate(one.at.items()):
                places = list(one.means.get(position, (at,)))
                expected = hidden[layer][0, places].mean(0)
                assert (together[row, layer, column] - expected).abs().max() < TOLERANCE, (layer, position)
    other = adapter.states(make_batch([encoded(name, [_swapped(prompts)])[0]], 0), layers)[0, :, -1]
    assert ((other - together[0, :, -1]).abs().amax(-1)[2:] > 1e-3).all(), "the picture does not matter"


def _swapped(prompts: list[Prompt]) -> Prompt:
    return user_prompt("p", ASKED[0], image=prompts[1].image)


@pytest.mark.parametrize("name", NAMES)
def test_the_readout_gives_the_logits(name: str, prompts: list[Prompt]) -> None:
    adapter, ones = adapter_of(name), encoded(name, prompts)
    readout = adapter.readout()
    state = adapter.states(make_batch(ones[:1], 0), [adapter.n_layers])[0, 0, -1]
    logits = readout.logits(readout.normed(state))
    assert (logits - plain(name, prompts[0]).logits[0, -1]).abs().max() < 10 * TOLERANCE


@pytest.mark.parametrize("name", [n for n in NAMES if n != "paligemma"])
def test_captions_and_text_beside_pictures(name: str, prompts: list[Prompt]) -> None:
    adapter = adapter_of(name)
    mixed = [prompts[0], user_prompt("c", ASKED[1], caption="a knife"), user_prompt("t", "Bake bread.")]
    ones = Encoder(adapter.processor).encode(mixed, ["t_inst", "t_post"])
    states = adapter.states(make_batch(ones, 0), range(adapter.n_layers + 1))
    for row, prompt in enumerate(mixed):
        hidden = plain(name, prompt).hidden_states
        # Where blocks are passed over for text, transformers lists fewer states.
        if len(hidden) == adapter.n_layers + 1:
            for layer in range(adapter.n_layers):
                assert (states[row, layer, 1] - hidden[layer][0, -1]).abs().max() < TOLERANCE
        logits = adapter.readout().logits(adapter.readout().normed(states[row, -1, 1]))
        assert (logits - plain(name, prompt).logits[0, -1]).abs().max() < 10 * TOLERANCE


def test_a_model_that_reads_nothing_without_a_picture_says_so() -> None:
    with pytest.raises(UsageError, match=r"prompt 't' has no picture, and this model reads none without one"):
        Encoder(processor_of("paligemma")).encode([user_prompt("t", "Bake bread.")], ["t_post"])


def test_a_picture_beside_the_text_has_no_tokens(prompts: list[Prompt]) -> None:
    with pytest.raises(UsageError, match=r"no image_mean"):
        Encoder(processor_of("mllama")).encode(prompts, ["image_mean"])


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_generate(name: str, prompts: list[Prompt]) -> None:
    model, processor = model_of(name), processor_of(name)
    expected = []
    for prompt in prompts:
        inputs = plain_inputs(name, prompt)
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
        expected.append(processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        if getattr(model.base_model, "rope_deltas", None) is not None:
            model.base_model.rope_deltas = None
    found = respond(model, processor, prompts, max_new_tokens=6)
    assert found == [text.strip() for text in expected]
    assert getattr(model.base_model, "rope_deltas", None) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_next_as_texts_grow(name: str, prompts: list[Prompt]) -> None:
    ones = encoded(name, prompts)
    texts = read(model_of(name), [e.ids for e in ones], [e.picture for e in ones])
    grown = texts.grown([1, 0, 1], [20, 21, 22]).grown([0, 1], [30, 31])
    for row in range(2):
        assert (texts.next_log_probs[row] - next_log_probs(name, prompts[row])).abs().max() < 10 * TOLERANCE
    for row, (which, more) in enumerate(((1, [20, 30]), (0, [21, 31]))):
        assert (grown.next_log_probs[row] - next_log_probs(name, prompts[which], more)).abs().max() < 10 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_answers_read_back_and_streamed(name: str, prompts: list[Prompt]) -> None:
    texts = answered(processor_of(name), prompts, ["I bake", "the box"], tokens=3)
    found = answer_log_probs(model_of(name), texts)
    expected = [
        next_log_probs(name, prompt, text.answer[:k])
        for prompt, text in zip(prompts, texts, strict=True)
        for k in range(len(text.answer))
    ]
    assert (found - torch.stack(expected)).abs().max() < 10 * TOLERANCE
    steps = list(stream(adapter_of(name), processor_of(name), prompts[0], layer=2, max_new_tokens=4))
    for k, step in enumerate(steps):
        said = [before.token for before in steps[:k]]
        if image_token(name) in said:  # a random model may say it, and transformers then asks for another picture
            break
        assert (step.state - plain(name, prompts[0], said).hidden_states[2][0, -1]).abs().max() < TOLERANCE
    (whole,) = respond(model_of(name), processor_of(name), prompts[:1], max_new_tokens=4)
    assert "".join(step.text for step in steps).strip() == whole


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mllama"])
def test_edits_of_the_picture(name: str, prompts: list[Prompt]) -> None:
    adapter = adapter_of(name)
    own = transplants(adapter, prompts, prompts, [1], at="image", taken="image")
    other = transplants(adapter, prompts, prompts[::-1], [1], at="image", taken="image")
    said = answers(adapter, prompts, tokens=4)
    unmoved, moved = (side_effects(adapter, prompts, said, edits) for edits in (own, other))
    assert unmoved.kl.abs().max() < 1e-6 < moved.kl.min()
    assert answers(adapter, prompts, own, tokens=4) == said
    with editing(adapter, other, encoded_prompts(adapter, prompts)):
        written = states_of(adapter, prompts, [1], "image")
    assert all(torch.equal(found[0], value) for found, value in zip(written, other[0].values, strict=True))
