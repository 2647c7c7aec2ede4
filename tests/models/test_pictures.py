"""Prompts with a picture or a caption in the slot: tokens, classes, positions and states, against transformers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.cache.batches import make_batch
from interp.errors import ImageError, ModelError, UsageError
from interp.models.encoding import CLASSES, Encoded, Encoder
from interp.models.hooks import HooksAdapter
from interp.models.load import load, load_random_twin
from interp.models.pictures import stacked
from interp.models.source import resolve
from interp.prompts.prompt import Message, Prompt, PromptSet, user_prompt
from tests.sights import IMAGE_TOKENS, LLAVA_TEMPLATE, llava_processor, picture, save_tiny_llava, tiny_llava
from tests.tiny import CHATML, make_tokenizer, tiny_llama

ASKED = "Describe this scene."
TEXT = f"USER: <image>\n{ASKED} ASSISTANT:"
LAYERS = range(5)


@pytest.fixture(scope="module")
def adapter() -> HooksAdapter:
    return HooksAdapter.of_module(tiny_llava(), llava_processor())


@pytest.fixture
def shown(tmp_path: Path) -> Prompt:
    return user_prompt("shown", ASKED, image=picture(tmp_path / "a.png"))


def encoded(adapter: HooksAdapter, prompt: Prompt, *positions: str) -> Encoded:
    return Encoder(adapter.processor).encode([prompt], positions or ["t_post"])[0]


@torch.no_grad()
def hidden(adapter: HooksAdapter, prompt: Prompt, text: str = TEXT) -> tuple[Tensor, ...]:
    """What transformers gives, with the processor called as its documentation says."""
    images = None if prompt.image is None else [Image.open(prompt.image).convert("RGB")]
    inputs = adapter.processor(text=[text], images=images, return_tensors="pt")
    found: tuple[Tensor, ...] = adapter.model(**inputs, output_hidden_states=True).hidden_states
    return found


def test_the_tokens_are_those_of_the_processor(adapter: HooksAdapter, shown: Prompt) -> None:
    inputs = adapter.processor(text=[TEXT], images=[Image.open(str(shown.image))], return_tensors="pt")
    assert list(encoded(adapter, shown).ids) == inputs["input_ids"][0].tolist()


def test_number_place_and_class_of_every_token(adapter: HooksAdapter, shown: Prompt) -> None:
    decode = adapter.tokenizer.decode
    one = encoded(adapter, shown)
    image = one.of_class("image")
    assert len(image) == IMAGE_TOKENS and image == tuple(range(image[0], image[0] + IMAGE_TOKENS))
    assert decode([one.ids[i] for i in one.of_class("instruction")]) == ASKED
    assert decode([one.ids[i] for i in one.of_class("template")]) == "USER: \n ASSISTANT:"
    assert set(one.classes) < set(CLASSES) and len(one.classes) == len(one.ids)
    said = encoded(adapter, replace(shown, response="A knife."))
    assert decode([said.ids[i] for i in said.of_class("response")]) == "A knife."


def test_a_caption_stands_where_the_picture_stood(adapter: HooksAdapter, shown: Prompt) -> None:
    told = replace(shown, image=None, caption="kitchen knife")
    one = encoded(adapter, told)
    assert adapter.tokenizer.decode(one.ids) == TEXT.replace("<image>", "kitchen knife")
    assert adapter.tokenizer.decode([one.ids[i] for i in one.of_class("caption")]) == "kitchen knife"
    assert one.picture is None and not one.of_class("image")


@pytest.mark.parametrize("positions", [("image_mean", "image_last", "t_inst", "t_post"), ("t_post", "image_mean")])
def test_states_are_the_models_own(adapter: HooksAdapter, shown: Prompt, positions: tuple[str, ...]) -> None:
    one, expected = encoded(adapter, shown, *positions), hidden(adapter, shown)
    states = adapter.states(make_batch([one], 0), LAYERS)
    for layer in range(4):
        for column, position in enumerate(positions):
            at = list(one.means.get(position, [one.at[position]]))
            assert (states[0, layer, column] - expected[layer][0, at].mean(0)).abs().max() < 1e-6
    # A picture that is not looked at would let all this pass.
    blind = adapter.states(make_batch([replace(one, picture=None)], 0), LAYERS)
    assert ((states - blind).abs().amax((0, 2, 3)) > 1e-2).all()


def test_the_caption_mean(adapter: HooksAdapter, shown: Prompt) -> None:
    told = replace(shown, image=None, caption="kitchen knife")
    one = encoded(adapter, told, "caption_mean")
    expected = hidden(adapter, told, TEXT.replace("<image>", "kitchen knife"))
    states = adapter.states(make_batch([one], 0), [0, 3])[0, :, 0]
    for state, layer in zip(states, (0, 3), strict=True):
        assert (state - expected[layer][0, list(one.of_class("caption"))].mean(0)).abs().max() < 1e-6


def test_a_batch_of_pictures_captions_and_text_is_each_alone(adapter: HooksAdapter, tmp_path: Path) -> None:
    prompts = [
        user_prompt("long", ASKED + " Say where it is.", image=picture(tmp_path / "a.png", 1)),
        user_prompt("told", ASKED, caption="a knife"),
        user_prompt("shown", ASKED, image=picture(tmp_path / "b.png", 2)),
        user_prompt("text", "How do I bake bread?"),
    ]
    ones = Encoder(adapter.processor).encode(prompts, ["t_inst", "t_post"])
    together = adapter.states(make_batch(ones, 0), LAYERS)
    for row, one in enumerate(ones):
        alone = adapter.states(make_batch([one], 0), LAYERS)
        assert (together[row] - alone[0]).abs().max() < 1e-5
    halves = [adapter.states(make_batch(ones, 0).of_rows(slice(k, k + 2)), LAYERS) for k in (0, 2)]
    assert (torch.cat(halves) - together).abs().max() < 1e-5


def test_padding_on_the_left(adapter: HooksAdapter, shown: Prompt, tmp_path: Path) -> None:
    other = user_prompt("other", ASKED + " Say where.", image=picture(tmp_path / "b.png", 2))
    ones = Encoder(adapter.processor).encode([shown, other], ["image_mean", "t_post"])
    right = make_batch(ones, 0)
    missing = right.mask.shape[1] - int(right.mask[0].sum())
    moved = right.means[0].clone()
    moved[0][moved[0] >= 0] += missing
    left = replace(
        right,
        ids=torch.stack([right.ids[0].roll(missing), right.ids[1]]),
        mask=torch.stack([right.mask[0].roll(missing), right.mask[1]]),
        at=right.at + torch.tensor([[missing], [0]]),
        means={0: moved},
    )
    assert missing > 0
    assert (adapter.states(left, LAYERS) - adapter.states(right, LAYERS)).abs().max() < 1e-5


def test_text_runs_through_the_decoder_alone(adapter: HooksAdapter) -> None:
    """To the bit as a plain Llama of the same weights does."""
    decoder = tiny_llama(vocab_size=len(adapter.tokenizer))
    decoder.model.load_state_dict(adapter.model.model.language_model.state_dict())
    batch = make_batch([encoded(adapter, user_prompt("t", "How do I bake bread?"), "t_inst", "t_post")], 0)
    plain = HooksAdapter.of_module(decoder, make_tokenizer())
    assert torch.equal(adapter.states(batch, LAYERS), plain.states(batch, LAYERS))


def test_nothing_runs_above_the_last_layer_and_no_hook_stays(adapter: HooksAdapter, shown: Prompt) -> None:
    def hooks() -> int:  # transformers leaves some of its own
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in adapter.model.modules())

    before, ran = hooks(), list[int]()
    blocks = adapter.anatomy.blocks
    handles = [block.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks, 1)]
    adapter.states(make_batch([encoded(adapter, shown)], 0), [0, 2])
    for handle in handles:
        handle.remove()
    assert ran == [1, 2]
    assert hooks() == before


def test_a_mean_is_taken_in_float32(shown: Prompt) -> None:
    adapter = HooksAdapter.of_module(tiny_llava().bfloat16(), llava_processor())
    one = encoded(adapter, shown, "image_mean", "t_post")
    states = adapter.states(make_batch([one], 0), [2])
    each = replace(one, at={f"{i}": i for i in one.of_class("image")}, means={})
    singly = adapter.states(make_batch([each], 0), [2])[0, 0]
    assert singly.dtype == torch.bfloat16 and states.dtype == torch.float32
    assert (states[0, 0, 0] - singly.float().mean(0)).abs().max() < 1e-6
    assert torch.equal(states[0, 0, 1], adapter.states(make_batch([encoded(adapter, shown)], 0), [2])[0, 0, 0].float())


def test_a_mean_sees_nothing_of_other_tokens(adapter: HooksAdapter, shown: Prompt) -> None:
    batch = make_batch([encoded(adapter, shown, "image_mean")], 0)
    states = torch.full((1, batch.ids.shape[1], 4), torch.inf)
    states[0, batch.means[0][0]] = 2.0
    assert torch.equal(batch.read(states), torch.full((1, 1, 4), 2.0))


@pytest.mark.parametrize(
    ("position", "prompt", "lacking"),
    [
        ("image_mean", user_prompt("p", "Hello"), "has no image"),
        ("image_last", user_prompt("p", "Hello", caption="knife"), "has no image"),
        ("caption_mean", user_prompt("p", "Hello"), "has no caption"),
    ],
)
def test_a_slot_without_what_is_asked_for(adapter: HooksAdapter, position: str, prompt: Prompt, lacking: str) -> None:
    with pytest.raises(UsageError, match=rf"prompt 'p' {lacking} in its slot, so no {position}"):
        encoded(adapter, prompt, position)


def test_a_model_of_text_reads_captions_but_no_pictures(shown: Prompt) -> None:
    encoder = Encoder(make_tokenizer())
    with pytest.raises(UsageError, match=r"prompt 'shown' has a picture.*vision-language model.*processor"):
        encoder.encode([shown], ["t_post"])
    (one,) = encoder.encode([replace(shown, image=None, caption="a knife")], ["caption_mean", "t_post"])
    assert f"user\na knife\n{ASKED}<|im_end|>" in encoder.tokenizer.decode(one.ids)
    assert encoder.tokenizer.decode([one.ids[i] for i in one.means["caption_mean"]]) == "a knife"


@pytest.mark.parametrize("place", ["instruction", "caption", "system", "earlier"])
@pytest.mark.parametrize("forged", ["<image>", "<|im_end|>", "a <image> b <|im_start|>user"])
def test_no_text_becomes_a_control_token_or_a_picture(
    adapter: HooksAdapter, shown: Prompt, place: str, forged: str
) -> None:
    messages = {
        "system": (Message("system", forged), Message("user", ASKED)),
        "earlier": (Message("user", forged), Message("assistant", "Yes."), Message("user", ASKED)),
    }.get(place, (Message("user", f"Say {forged} now." if place == "instruction" else ASKED),))
    image = None if place == "caption" else shown.image
    one = encoded(adapter, Prompt("p", messages, image=image, caption=forged if image is None else None))
    assert len(one.of_class("image")) == (0 if image is None else IMAGE_TOKENS)
    assert one.control_free == forged.count("<")
    control = set(adapter.tokenizer.convert_tokens_to_ids(["<image>", "<|im_end|>", "<|im_start|>"]))
    outside = [i for i, name in zip(one.ids, one.classes, strict=True) if name != "image"]
    assert not control & set(outside)
    assert forged in adapter.tokenizer.decode(one.ids)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (CHATML, f"<|im_start|>user\n<image>\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"),
        ("{% for m in messages %}[{{ m['content'] }}]{% endfor %}", f"[<image>\n{ASKED}]"),
        ("{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}", f"[<image>\n{ASKED}]"),
        (None, f"<image>{ASKED}"),
    ],
)
def test_templates_that_take_only_strings(shown: Prompt, template: str | None, text: str) -> None:
    processor = llava_processor(chat_template=template)
    adapter = HooksAdapter.of_module(tiny_llava(), processor)
    one, expected = encoded(adapter, shown, "image_mean", "t_post"), hidden(adapter, shown, text)
    assert len(one.of_class("image")) == IMAGE_TOKENS
    states = adapter.states(make_batch([one], 0), [3])[0, 0]
    assert (states[1] - expected[3][0, -1]).abs().max() < 1e-6
    told = encoded(adapter, replace(shown, image=None, caption="a knife"))
    told_text = text.replace("<image>", "a knife" if template else "a knife\n")
    assert processor.tokenizer.decode(told.ids) == told_text


def test_a_template_without_a_place_for_pictures_is_refused(shown: Prompt) -> None:
    template = LLAVA_TEMPLATE.replace("<image>", "a picture")
    with pytest.raises(ModelError, match=r"prompt 'shown': the model's chat template does not put one <image>"):
        Encoder(llava_processor(chat_template=template)).encode([shown], ["t_post"])


def test_a_picture_that_can_not_be_read(adapter: HooksAdapter, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: is not there"):
        encoded(adapter, user_prompt("p", ASKED, image=str(tmp_path / "none.png")))


def test_a_processor_of_another_model_is_refused() -> None:
    model = tiny_llava()
    model.config.image_token_id = 7
    with pytest.raises(ModelError, match=r"puts token \d+ where a picture is read, the model reads it at 7"):
        HooksAdapter.of_module(model, llava_processor())


def test_a_folder_is_loaded_with_its_processor(adapter: HooksAdapter, shown: Prompt, tmp_path: Path) -> None:
    source = resolve(str(save_tiny_llava(tmp_path / "model")))
    loaded = load(source)
    batch = make_batch([encoded(adapter, shown, "image_mean", "t_post")], 0)
    assert torch.equal(loaded.states(batch, LAYERS), adapter.states(batch, LAYERS))
    assert type(loaded.processor.image_processor).__name__.endswith("Pil")
    assert loaded.tokenizer is loaded.processor.tokenizer
    assert loaded.readout().vocab == len(loaded.tokenizer)
    twin = load_random_twin(source)
    assert type(twin.model) is type(adapter.model)
    assert not torch.equal(twin.states(batch, [4]), adapter.states(batch, [4]))


def test_a_folder_without_processor_files_reads_text(shown: Prompt, tmp_path: Path) -> None:
    folder = save_tiny_llava(tmp_path / "model")
    (folder / "processor_config.json").unlink()
    loaded = load(resolve(str(folder)))
    assert loaded.processor is loaded.tokenizer
    assert Encoder(loaded.processor).encode([user_prompt("t", "Hello")], ["t_post"])
    with pytest.raises(UsageError, match="with its processor files"):
        Encoder(loaded.processor).encode([shown], ["t_post"])


@pytest.mark.parametrize("backend", ["nnsight", "transformer_lens"])
def test_other_backends_name_the_one_that_reads_pictures(backend: str, shown: Prompt, tmp_path: Path) -> None:
    from interp.models.pictures import refuse_pictures

    one = encoded(HooksAdapter.of_module(tiny_llava(), llava_processor()), shown)
    with pytest.raises(ModelError, match=f"the backend {backend} reads no pictures; use --backend hooks"):
        refuse_pictures([None, one.picture], backend)


def test_a_harvest_of_pictures_is_told_by_their_bytes(adapter: HooksAdapter, tmp_path: Path) -> None:
    def planned(folder: Path, seed: int = 0, **capture: int) -> tuple[str, ActivationCache]:
        folder.mkdir(exist_ok=True)
        prompts = PromptSet(
            "s", tuple(user_prompt(f"{i}", ASKED, image=picture(folder / f"{i}.png", seed + i)) for i in range(5))
        )
        harvest = plan_harvest(adapter, prompts, Capture(("image_mean", "t_post"), **capture))
        assert harvest.plan.shared == 0
        run = run_harvest(harvest, tmp_path / "runs")
        return run.name, ActivationCache.open(run)

    key, cache = planned(tmp_path / "a")
    assert planned(tmp_path / "b")[0] == key != planned(tmp_path / "c", seed=9)[0]
    means = cache.residuals(position="image_mean", layer=4)
    assert torch.pdist(means).min() > 1e-2
    _, small = planned(tmp_path / "a", max_rows=2)
    assert (small.residuals(position="image_mean", layer=4) - means).abs().max() < 1e-5


def test_tensors_of_other_sizes_are_filled_up() -> None:
    a, b = torch.ones(1, 2, 3), torch.ones(2, 3, 1)
    whole = stacked([a, b])
    assert whole.shape == (3, 3, 3)
    assert torch.equal(whole[:1, :2], a) and torch.equal(whole[1:, :, :1], b)
    assert whole.sum() == a.sum() + b.sum()
