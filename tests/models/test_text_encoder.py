import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, CLIPModel

from interp.errors import ModelError
from interp.models.sentence_modules import pool
from interp.models.text_encoder import load_text_encoder
from interp.packages import cache_home
from tests.models.encoders import save_bert, save_clip
from tests.tiny import SENTENCES

POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"), pooling=POOLINGS["mean"])


def alone(folder, text):
    """The last states of one text without padding, from transformers itself."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=32)).last_hidden_state[0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_the_pooled_states_of_each_text_alone(tmp_path, pooling):
    folder = save_bert(tmp_path / "bert", pooling=POOLINGS[pooling])
    found = load_text_encoder(str(folder)).encode(SENTENCES, batch_size=2)
    pooled = {
        "mean": lambda s: s.mean(0),
        "cls": lambda s: s[0],
        "max": lambda s: s.amax(0),
        "lasttoken": lambda s: s[-1],
    }
    expected = torch.stack([pooled[pooling](alone(folder, text)) for text in SENTENCES])
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(SENTENCES)))


def test_without_modules_it_is_the_mean_over_the_whole_context(tmp_path, bert):
    plain = load_text_encoder(str(save_bert(tmp_path / "plain", pooling=None)))
    assert (plain.max_tokens, load_text_encoder(str(bert)).max_tokens) == (64, 32)
    torch.testing.assert_close(plain.encode(SENTENCES), load_text_encoder(str(bert)).encode(SENTENCES))


@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_is_not_counted(left):
    states, mask = torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.long)
    mask[0, :2] = 0
    mask[1, :4] = 0
    if not left:
        states, mask = states.flip(1), mask.flip(1)
    for how in (*POOLINGS, "mean_sqrt_len"):
        found = pool(states, mask, how)
        for row in range(3):
            real = states[row][mask[row] == 1]
            torch.testing.assert_close(found[row], pool(real[None], torch.ones(1, len(real), dtype=torch.long), how)[0])


def test_a_dense_layer_is_applied(tmp_path):
    folder = save_bert(tmp_path / "bert", pooling=POOLINGS["mean"], extra=("Dense",))
    dense = folder / "2_Dense"
    dense.mkdir()
    weight = torch.randn(8, 16)
    save_file({"linear.weight": weight, "linear.bias": torch.ones(8)}, dense / "model.safetensors")
    (dense / "config.json").write_text(json.dumps({"activation_function": "torch.nn.modules.activation.Tanh"}))
    found = load_text_encoder(str(folder))
    expected = torch.tanh(alone(folder, SENTENCES[0]).mean(0) @ weight.T + 1)
    torch.testing.assert_close(found.encode(SENTENCES[:1])[0], F.normalize(expected, dim=0), atol=1e-5, rtol=0)
    before = found.digest
    save_file({"linear.weight": -weight, "linear.bias": torch.ones(8)}, dense / "model.safetensors")
    assert load_text_encoder(str(folder)).digest != before


def test_what_can_not_be_followed_is_refused(tmp_path):
    with pytest.raises(ModelError, match="WordWeights"):
        load_text_encoder(str(save_bert(tmp_path / "a", pooling=POOLINGS["mean"], extra=("WordWeights",))))
    with pytest.raises(ModelError, match="pooling"):
        load_text_encoder(str(save_bert(tmp_path / "b", pooling="weightedmean_tokens")))


def test_a_digest_is_of_what_decides_a_vector(tmp_path, bert):
    again = save_bert(tmp_path / "again", pooling=POOLINGS["mean"])
    assert load_text_encoder(str(again)).digest == load_text_encoder(str(bert)).digest
    others = [
        save_bert(tmp_path / "cls", pooling=POOLINGS["cls"]),
        save_bert(tmp_path / "seed", pooling=POOLINGS["mean"], seed=1),
    ]
    (again / "config_sentence_transformers.json").write_text(
        '{"prompts": {"q": "query: "}, "default_prompt_name": "q"}'
    )
    digests = {load_text_encoder(str(folder)).digest for folder in (bert, again, *others)}
    assert len(digests) == 4
    prefixed, plain = load_text_encoder(str(again)), load_text_encoder(str(bert))
    torch.testing.assert_close(prefixed.encode(["a lock"]), plain.encode(["query: a lock"]))


def test_clip_puts_texts_and_pictures_into_one_space(tmp_path):
    folder = save_clip(tmp_path / "clip")
    encoder, model = load_text_encoder(str(folder)), CLIPModel.from_pretrained(folder).eval()
    texts, pictures = encoder.encode(SENTENCES[:3]), [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    images = encoder.encode_images(pictures, batch_size=1)
    assert texts.shape == (3, 8) and images.shape == (2, 8) and encoder.reads_images
    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES[:3], padding=True, return_tensors="pt")
    pixels = encoder._image_processor()(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(images @ texts.T, logits, atol=1e-5, rtol=0)


def test_a_text_encoder_reads_no_pictures(bert):
    with pytest.raises(ModelError, match="CLIP"):
        load_text_encoder(str(bert)).encode_images([Image.new("RGB", (4, 4))])


def test_no_texts_no_vectors(bert):
    assert load_text_encoder(str(bert)).encode([]).shape == (0, 16)


def test_the_packaged_encoder_is_not_fetched_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="demo:minilm"):
        load_text_encoder(offline=True)


@pytest.mark.skipif(not (cache_home() / "models" / "all-minilm-l6-v2").is_dir(), reason="demo:minilm is not fetched")
def test_the_packaged_encoder_knows_what_is_alike():
    encoder = load_text_encoder(offline=True)
    meals, flights = (
        ["A man is eating food.", "Someone eats a meal."],
        ["A rocket flies to the moon.", "The spacecraft"],
    )
    vectors = encoder.encode(meals + flights)
    assert vectors.shape == (4, 384)
    alike = vectors @ vectors.T
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max() + 0.2
