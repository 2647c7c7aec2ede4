"""The projector's training, on a tiny tower, a tiny language model and pictures made here."""

import json
import random
from dataclasses import replace

import pytest
import torch

from interp.models.hooks import HooksAdapter
from interp.models.projector import train as training
from interp.models.projector.network import FrozenReader, Projector
from interp.models.projector.processor import image_processor
from interp.models.projector.recipe import RECIPES, answer, named
from interp.models.projector.train import names_exactly, reader_of, scale_to, sort, train
from interp.models.projector.views import features, outlined, view, views_of
from interp.prompts.pairs import Pair
from interp.scenes.catalogue import concepts
from tests.tiny import make_tokenizer, tiny_llama

NAMES = ["dog", "egg", "key"]
COLOURS = {"dog": "#c03030", "egg": "#30c030", "key": "#3030c0"}


def tiny_tower():
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "image_size": 28, "patch_size": 14}
    return Dinov2Model(Dinov2Config(**config, initializer_range=0.3)).eval()


@pytest.fixture
def base(monkeypatch):
    """A tiny language model that the trainer takes for the one its recipe names."""
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    monkeypatch.setattr(training, "load", lambda *_: adapter)
    monkeypatch.setattr(training, "resolve", lambda *_, **__: None)
    return adapter


@pytest.fixture
def pairs(tmp_path):
    from PIL import Image

    found = []
    for name in NAMES:
        for style, split in (("a", "train"), ("b", "train"), ("c", "validation"), ("d", "test")):
            path = tmp_path / f"{name}-{style}.png"
            picture = Image.new("RGB", (56, 56), "white")
            picture.paste(Image.new("RGB", (40, 40), COLOURS[name]), (8, 8))
            picture.save(path)
            found.append(Pair(path.stem, str(path), name, concept=name, style=style, split=split))
    return found


@pytest.fixture
def recipe():
    small = {
        "pixels": 28,
        "layers": (1, 2),
        "views": 2,
        "sorting_steps": 20,
        "sorting_batch": 4,
        "steps": 6,
        "batch": 4,
    }
    return replace(RECIPES["llava"], **small)


def stored(pairs, recipe):
    return features(tiny_tower(), image_processor(recipe.pixels), views_of(pairs, 1, 0)(0), recipe.layers)


def test_answers_are_names_and_names_are_told_apart():
    assert answer("kitchen knife") == "A kitchen knife." and answer("axe") == "An axe."
    assert answer("scissors") == "Scissors."
    assert named("A kitchen knife.", "kitchen knife") and named("kitchen knife", "kitchen knife")
    assert not named("A knife.", "kitchen knife") and not named("A kitchen knife on a table.", "kitchen knife")
    said = {c.caption: answer(c.caption) for c in concepts() if c.scene}
    for caption, response in said.items():
        assert [other for other in said if named(response, other)] == [caption]


def test_views_differ_keep_their_size_and_mirror_no_letters(pairs):
    from PIL import Image

    half = Image.new("RGB", (56, 56), "white")
    half.paste("black", (0, 0, 20, 56))
    seen = [view(half, random.Random(seed), flip=True) for seed in range(12)]
    assert {v.size for v in seen} == {(56, 56)} and len({v.tobytes() for v in seen}) == 12
    left = [
        v.resize((2, 1)).convert("L").getpixel((0, 0)) < v.resize((2, 1)).convert("L").getpixel((1, 0)) for v in seen
    ]
    assert any(left) and not all(left), "some are mirrored"
    plain = [view(half, random.Random(seed), flip=False) for seed in range(12)]
    assert all(
        v.resize((2, 1)).convert("L").getpixel((0, 0)) < v.resize((2, 1)).convert("L").getpixel((1, 0)) for v in plain
    )
    nth = views_of(pairs[:2], 2, seed=3)
    assert [x.tobytes() for x in nth(1)] == [x.tobytes() for x in nth(1)] != [x.tobytes() for x in nth(0)]


def test_an_outlined_picture_is_black_where_the_colour_changes_and_nowhere_else():
    from PIL import Image, ImageChops, ImageFilter

    square = Image.new("RGB", (96, 96), "white")
    square.paste("#e8e0b0", (32, 32, 64, 64))  # pale: the outline is there at little contrast too
    border = ImageChops.difference(square.filter(ImageFilter.MaxFilter(3)), square.filter(ImageFilter.MinFilter(3)))
    near = border.convert("L").filter(ImageFilter.MaxFilter(11)).point([0, *[255] * 255])
    drawn = [outlined(square, random.Random(seed)) for seed in range(12)]
    assert {d.size for d in drawn} == {(96, 96)} and len({d.tobytes() for d in drawn}) > 8
    for one in drawn:
        dark = one.convert("L").point([255 * (value < 100) for value in range(256)])
        assert dark.getbbox() is not None
        assert ImageChops.subtract(dark, near).getbbox() is None
    corners, middles = ({d.getpixel(at) for d in drawn} for at in ((4, 4), (48, 48)))
    assert corners == {(255, 255, 255)} and len(middles) > 3, "the colours are kept, paled or left out"


def test_the_share_of_outlined_views_is_as_asked(pairs):
    def darkest(outlines):
        nth = views_of(pairs[:4], 2, seed=3, outlines=outlines)
        assert [x.tobytes() for x in nth(0)] == [x.tobytes() for x in views_of(pairs[:4], 1, seed=3)(0)]
        return [x.convert("L").getextrema()[0] for x in nth(1)]

    assert all(a < b for a, b in zip(darkest(1.0), darkest(0.0), strict=True))


def test_features_are_the_patches_of_the_layers_asked_for(pairs, recipe):
    found, tower = stored(pairs[:3], recipe), tiny_tower()
    assert found.shape == (3, recipe.tokens, 32) and recipe.tokens == 4
    pixels = image_processor(28)(images=views_of(pairs[:3], 1, 0)(0), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    expected = torch.cat([states[1][:, 1:], states[2][:, 1:]], -1)
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)


def test_the_folded_weights_are_the_projector(pairs, recipe):
    from transformers import AutoConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    torch.manual_seed(0)
    examples = stored(pairs, recipe)
    projector = Projector(32, 24)
    projector.standardise(examples)
    text = {"model_type": "llama", "hidden_size": 24, "num_attention_heads": 2}
    vision = {"model_type": "dinov2", "hidden_size": 16}
    config = AutoConfig.for_model("llava", text_config=text, vision_config=vision, vision_feature_layer=[1, 2])
    theirs = LlavaMultiModalProjector(config)
    theirs.load_state_dict(projector.folded())
    with torch.no_grad():
        torch.testing.assert_close(theirs(examples.float()), projector(examples), atol=1e-4, rtol=1e-4)


def test_the_reader_says_what_the_whole_model_says(base):
    """Prefix computed once, right padding and kept tokens against one plain forward per row."""
    model, reader = base.model, reader_of(base, NAMES)
    torch.manual_seed(1)
    tokens = torch.randn(2, 4, base.d_model)
    log_probs, targets, row = reader.log_probs(tokens, 1, [2, 0])
    tokenizer = base.tokenizer
    turn = [{"role": "user", "content": "@\nWhat is in the picture?"}]
    before, after = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True).split("@")
    for number, name in enumerate(("key", "dog")):
        said = [*tokenizer(answer(name))["input_ids"], tokenizer.eos_token_id]
        ids = [torch.tensor([tokenizer(part)["input_ids"]]) for part in (before, after)]
        embed = model.get_input_embeddings()
        whole = torch.cat([embed(ids[0]), tokens[number : number + 1], embed(ids[1]), embed(torch.tensor([said]))], 1)
        with torch.no_grad():
            expected = model(inputs_embeds=whole).logits.log_softmax(-1)[0, -len(said) - 1 : -1]
        assert targets[row == number].tolist() == said
        torch.testing.assert_close(log_probs[row == number], expected, atol=1e-4, rtol=1e-4)


def likelihoods(projector, reader, examples):
    """Log-likelihood of every name (column) for every picture (row)."""
    found = torch.zeros(len(examples), len(NAMES))
    with torch.no_grad():
        for column in range(len(NAMES)):
            log_probs, targets, row = reader.log_probs(projector(examples), 0, [column] * len(examples))
            found[:, column].index_add_(0, row, log_probs.gather(1, targets[:, None])[:, 0])
    return found


def test_training_moves_the_projector_alone_and_learns_what_names_what(base, pairs, recipe, tmp_path):
    """A random language model can not be brought to say every name; each name must still fit its own picture best."""
    before = {n: p.clone() for n, p in base.model.named_parameters()}
    said = []
    longer = replace(recipe, steps=150, learning_rate=1e-2, noise=0.0)
    projector = train(longer, pairs, tiny_tower(), image_processor(28), tmp_path / "work", said.append)
    assert all(torch.equal(p, before[n]) for n, p in base.model.named_parameters())
    told = [line for line in said if line.startswith("captioning") and "loss" in line]
    losses = [float(line.split("loss ")[1].split()[0]) for line in told]
    assert losses[-1] < 0.8 * losses[0]
    assert "named in the validation style: " in said[-1]
    unseen = stored([p for p in pairs if p.split == "test"], longer)
    assert likelihoods(projector, reader_of(base, NAMES), unseen).argmax(0).tolist() == [0, 1, 2]


def test_a_picture_is_named_exactly_when_the_greedy_answer_is_its_name(base):
    torch.manual_seed(2)
    projector, examples = Projector(8, base.d_model), torch.randn(2, 4, 8)
    reader = reader_of(base, NAMES)
    with torch.no_grad():
        greedy = []
        for row in range(2):
            ids = [0]
            for _ in range(4):  # the last token is only a place holder: it is predicted, never read
                reader.answers = [[*ids[1:], 0]]
                ids.append(int(reader.log_probs(projector(examples[row : row + 1]), 0, [0])[0][-1].argmax()))
            greedy.append(ids[1:])
    reader.answers = greedy
    assert names_exactly(projector, reader, examples, [0, 1]) == [True, True]
    reader.answers = [[*greedy[0][:-1], (greedy[0][-1] + 1) % 100], greedy[1]]
    assert names_exactly(projector, reader, examples, [0, 1]) == [False, True]


def test_a_stopped_run_goes_on_to_the_same_bits(base, pairs, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EVERY", 2)
    whole = train(recipe, pairs, tiny_tower(), image_processor(28), tmp_path / "whole", str)
    steps, taken = training._step, []

    def stopping(loss, *rest):
        if len(taken) == recipe.sorting_steps + 5:
            raise KeyboardInterrupt
        taken.append(loss)
        steps(loss, *rest)

    monkeypatch.setattr(training, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, pairs, tiny_tower(), image_processor(28), tmp_path / "stopped", str)
    monkeypatch.setattr(training, "_step", steps)
    resumed = train(recipe, pairs, tiny_tower(), image_processor(28), tmp_path / "stopped", str)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_sorting_knows_no_word_and_tokens_get_the_norm_of_words(pairs, recipe):
    """The first phase leaves the layer that speaks to the language model as it was."""
    torch.manual_seed(0)
    examples = stored(pairs, recipe)
    projector = Projector(32, 24)
    projector.standardise(examples)
    first, second = projector.linear_1.weight.clone(), projector.linear_2.weight.clone()
    views = {"view-0": examples, "view-1": examples}
    sort(projector, recipe, views, [NAMES.index(p.caption) for p in pairs], 3, str)
    assert torch.equal(projector.linear_2.weight, second) and not torch.equal(projector.linear_1.weight, first)
    embedding = torch.randn(50, 24)
    scale_to(projector, examples, embedding)
    norm = float(projector(examples).detach().norm(dim=-1).mean())
    assert norm == pytest.approx(float(embedding.norm(dim=-1).mean()), rel=1e-3)


def test_the_prefix_is_read_once(base):
    reader = reader_of(base, NAMES)
    assert isinstance(reader, FrozenReader) and len(reader.after) == 4
    calls = []
    hook = base.model.model.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        first = reader.log_probs(torch.zeros(1, 4, base.d_model), 0, [0])[0]
        second = reader.log_probs(torch.zeros(1, 4, base.d_model), 0, [0])[0]
    hook.remove()
    assert len(calls) == 2 and torch.equal(first, second), "a step does not grow what the next one reads"


def test_recipes_can_be_written_down():
    for name, recipe in RECIPES.items():
        assert name == recipe.name and json.loads(json.dumps({"layers": recipe.layers}))
        assert recipe.tokens == (recipe.pixels // 14) ** 2
