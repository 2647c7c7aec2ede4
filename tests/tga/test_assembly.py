from dataclasses import replace

import pytest
import torch

from interp.cache import ActivationCache
from interp.errors import CacheError, ModelError, UsageError
from interp.models.encoding import Encoder
from interp.models.hooks import HooksAdapter
from interp.models.projected import ProjectedModel, projector_of
from interp.prompts.pairs import Pair
from interp.tga.assembly import assemble, of_arm
from interp.tga.guide import masked_mean
from interp.tga.harvest import harvest_features, harvest_texts, picture_prompts, text_prompts
from interp.tga.losses import image_states, losses_of
from interp.tga.preparation import prepare
from interp.tga.recipe import Recipe
from interp.tga.samples import TEXTS, TOWER
from interp.tga.trainer import train
from interp.tga.variants import VARIANTS, variant
from tests.sights import IMAGE_TOKENS, llava_processor, picture, tiny_llava
from tests.tiny import tiny_llama

QUESTION = "Explain how the lock works."
CAPTIONS = ("a loaf of bread", "a door", "the letter", "a fox", "seven wizards", "a dog")


def seeing(seed=0):
    return HooksAdapter.of_module(tiny_llava(seed), llava_processor())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = [
        Pair(f"p{i}", picture(folder / f"{i}.png", seed=i), caption, split="train")
        for i, caption in enumerate(CAPTIONS)
    ]
    made[1] = replace(made[1], scene="gun")
    made[2] = replace(made[2], scene="gun", twin_of="p1")
    made[4] = replace(made[4], split="validation")
    made[5] = replace(made[5], split="test")
    return tuple(made)


@pytest.fixture(scope="module")
def retrieved(pairs):
    return {p.id: CAPTIONS[(i + 1) % len(CAPTIONS)] for i, p in enumerate(pairs)}


@pytest.fixture(scope="module")
def runs(pairs, tmp_path_factory):
    root, adapter = tmp_path_factory.mktemp("runs"), seeing()
    features = harvest_features(adapter, pairs, root, question=QUESTION, batch=4)
    return features, harvest_texts(adapter, CAPTIONS, root, question=QUESTION)


def put_together(pairs, retrieved, runs, name="paper", arm="captioned", **options):
    known = {"arm": arm, "variant": VARIANTS[name], "features": runs[0], "texts": runs[1], "retrieved": retrieved}
    return assemble(seeing(), pairs, **{**known, "question": QUESTION, **options})


def test_features_are_what_the_projector_is_called_with(pairs, runs):
    features, _ = runs
    model, reader = tiny_llava(), Encoder(llava_processor())
    encoded = reader.encode(picture_prompts(pairs, QUESTION), ["image_mean"])
    assert features.positions == (TOWER,) and features.layers == tuple(range(IMAGE_TOKENS))
    for row in (0, 5):
        pixels = encoded[row].picture.pixels()["pixel_values"]
        with torch.no_grad():
            theirs = model.get_image_features(pixel_values=pixels).pooler_output[0]
            ours = projector_of(model)(features.rows([row], position=TOWER))[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_both_runs_are_made_once(pairs, runs, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    first = harvest_features(seeing(), pairs, root, question=QUESTION)
    import interp.tga.harvest as harvest

    monkeypatch.setattr(harvest, "vision_features", lambda *_: pytest.fail("ran again"))
    assert harvest_features(seeing(), pairs, root, question=QUESTION).key == first.key
    with pytest.raises(pytest.fail.Exception, match="ran again"):
        harvest_features(seeing(1), pairs, root, question=QUESTION)


def test_a_model_without_a_projector_is_refused(pairs, tmp_path):
    adapter = HooksAdapter(tiny_llama(), llava_processor(), seeing().identity, seeing().runtime)
    with pytest.raises(ModelError, match="LLaVA-class"):
        harvest_features(adapter, pairs, tmp_path, question=QUESTION)


def test_a_model_that_does_more_with_pictures_is_refused(pairs, tmp_path, monkeypatch):
    adapter = seeing()
    real = adapter.model.model.get_image_features

    def scaled(*args, **options):
        found = real(*args, **options)
        found.pooler_output = [3 * x for x in found.pooler_output]
        return found

    scaled.__signature__ = __import__("inspect").signature(real)
    monkeypatch.setattr(adapter.model.model, "get_image_features", scaled)
    with pytest.raises(ModelError, match="otherwise"):
        harvest_features(adapter, pairs, tmp_path, question=QUESTION)


@pytest.mark.parametrize("name", ["paper", "no-guide"])
def test_cached_states_are_those_of_the_very_prompt(pairs, retrieved, runs, name):
    """C and R as the language model itself computes them, and the picture's states as the adapter reads them."""
    data = put_together(pairs, retrieved, runs, name)
    adapter, sample = seeing(), data.train[0]
    layers = (1, 2, 4)
    reads = ProjectedModel(adapter.model)
    with torch.no_grad():
        seen = reads.run(data.rows([sample]), layers)
    states = data.text_states([sample.caption, sample.retrieved], layers)
    if name == "no-guide":
        # The prompt with the picture, as any harvest reads it.
        from interp.cache import Capture, plan_harvest, run_harvest

        harvest = plan_harvest(adapter, picture_prompts(pairs, QUESTION), Capture(positions=("image_mean",)))
        cache = ActivationCache.open(run_harvest(harvest, runs[0].place + "-x"))
        expected = cache.residuals(position="image_mean")[0, list(layers)]
        found = image_states(seen, data.rows([sample]), layers, [0])[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        return
    # The retrieved text stands before the picture, so its states there are the cached ones.
    encoder = Encoder(adapter.processor)
    assert adapter.tokenizer.decode(sample.ids).count(retrieved["p0"]) == 1
    (alone,) = encoder.encode(text_prompts([retrieved["p0"]], QUESTION), ["caption_mean"])
    words = alone.of_class("caption")
    assert [sample.ids[i] for i in words] == [alone.ids[i] for i in words]
    assert words[-1] < sample.image[0] and data.shared <= words[0]
    there = torch.zeros(1, next(iter(seen.states.values())).shape[1], dtype=torch.bool)
    there[0, [i - data.shared for i in words]] = True
    for k, layer in enumerate(layers):
        torch.testing.assert_close(masked_mean(seen.states[layer], there)[0], states[1, k], atol=1e-5, rtol=1e-4)
    assert encoder.tokenizer.decode(sample.answer[:-1]) == pairs[0].caption
    assert sample.answer[-1] == adapter.tokenizer.eos_token_id


def test_arms_say_which_pictures_take_part(pairs, retrieved, runs):
    everything = put_together(pairs, retrieved, runs, arm="captioned")
    assert [s.id for s in everything.train] == ["p0", "p1", "p2", "p3"]
    assert [s.id for s in everything.validation] == ["p4"]
    assert all(s.captioned and s.guided for s in everything.train)
    guided = put_together(pairs, retrieved, runs, arm="guide-only")
    assert {s.id: s.captioned for s in guided.train} == {"p0": True, "p1": False, "p2": True, "p3": True}
    assert all(s.guided for s in guided.train), "the harmful picture counts in the guide; its twin is as any other"
    left = put_together(pairs, retrieved, runs, arm="left-out")
    assert [s.id for s in left.train] == ["p0", "p2", "p3"]
    assert len({everything.digest, guided.digest, left.digest}) == 3
    with pytest.raises(UsageError, match="guide-only"):
        of_arm(pairs, "scenes")
    with pytest.raises(UsageError, match="no picture"):
        put_together([p for p in pairs if p.label == "harmful"], retrieved, runs, arm="left-out")


def test_guide_only_pictures_have_no_captioning_loss(pairs, retrieved, runs):
    data = put_together(pairs, retrieved, runs, arm="guide-only")
    reads = ProjectedModel(tiny_llava())
    with torch.no_grad():
        both = losses_of(reads, data, data.train, VARIANTS["paper"], (1, 2))
        without = losses_of(reads, data, [s for s in data.train if s.captioned], VARIANTS["paper"], (1, 2))
    assert both.tokens == without.tokens and both.pictures == without.pictures + 1
    torch.testing.assert_close(both.language, without.language, atol=1e-4, rtol=1e-5)


def test_what_a_run_lacks_is_said(pairs, retrieved, runs, tmp_path):
    with pytest.raises(CacheError, match="a text that is not there"):
        put_together(pairs, {**retrieved, "p0": "a text that is not there"}, runs, "no-guide")
    other = replace(pairs[0], id="new")
    with pytest.raises(UsageError, match="'new'"):
        put_together((other, *pairs), {**retrieved, "new": "a dog"}, runs)


def test_a_text_is_retrieved_by_the_states_of_the_picture(pairs, tmp_path):
    """As the model of transformers itself gives them: means over tokens at a layer, each kind less its mean."""
    used, adapter, layer = [p for p in pairs if p.split != "test"], seeing(), 2
    encoder, texts = Encoder(adapter.processor), [*dict.fromkeys(p.caption for p in used), "a locked door", "two keys"]

    def directions(prompts, kind):
        rows = []
        for e in encoder.encode(prompts, ["t_post"]):
            pixels = {} if e.picture is None else {"pixel_values": e.picture.pixels()["pixel_values"]}
            with torch.no_grad():
                out = adapter.model(input_ids=torch.tensor([e.ids]), output_hidden_states=True, **pixels)
            rows.append(out.hidden_states[layer][0, list(e.of_class(kind))].mean(0))
        return torch.nn.functional.normalize(torch.stack(rows) - torch.stack(rows).mean(0), dim=-1)

    cosines = (
        directions(picture_prompts(used, QUESTION), "image") @ directions(text_prompts(texts, QUESTION), "caption").T
    )
    for row, pair in enumerate(used):
        cosines[row, texts.index(pair.caption)] = -2
    how = {"variant": VARIANTS["paper"], "arm": "captioned", "question": QUESTION, "texts": texts[-2:]}
    found = prepare(adapter, pairs, tmp_path, retrieve_by=layer, **how)
    assert list(found.retrieved["retrieved"]) == [texts[i] for i in cosines.argmax(1)]
    torch.testing.assert_close(
        torch.tensor(found.retrieved["similarity"].to_list()).float(), cosines.max(1).values, atol=1e-4, rtol=1e-4
    )
    assert found.data.about["retrieved_by"] == "states of layer 2"
    with pytest.raises(UsageError, match="9"):
        prepare(adapter, pairs, tmp_path, retrieve_by=9, **how)


def test_a_projector_is_trained_from_pictures_to_the_end(pairs, retrieved, runs, tmp_path):
    data = put_together(pairs, retrieved, runs)
    recipe = Recipe(variant=variant("paper", layers=(1, 2)), steps=3, batch=4, micro_batch=2)
    found = train(tiny_llava(), data, recipe, tmp_path)
    assert found.steps == 3 and len(found.layers_table) == 2 * 5
    assert data.texts.positions == (TEXTS,)
