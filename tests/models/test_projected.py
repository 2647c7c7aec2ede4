import pytest
import torch
from torch.nn import functional as F

from interp.errors import ModelError
from interp.models.lora import Lora, add_lora, frozen_but, lora_parameters, write_lora
from interp.models.projected import IGNORED, ProjectedModel, Rows, projector_of
from tests.sights import IMAGE_TOKENS, SIDE
from tests.tga.seeing import tiny_llava

PREFIX = [5, 6, 7]


def sample(model, seed=0):
    """Two prompts of different lengths with pictures, and what the tower gives for these."""
    torch.manual_seed(seed)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    image = [model.config.image_token_id] * IMAGE_TOKENS
    texts = [PREFIX + image + [9, 10, 11, 12], [*PREFIX, *image, 20, 21]]
    width = max(map(len, texts))
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    targets = torch.full((2, width), IGNORED)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
        targets[row, len(text) - 2] = text[-1]
    targets[0, -3] = ids[0, -2]
    rows = Rows(ids, mask, ids == model.config.image_token_id, targets, features, shared=len(PREFIX))
    return rows, pixels


@pytest.mark.parametrize("frozen", [True, False])
def test_it_is_the_model_itself_fed_with_pictures(frozen):
    model = tiny_llava()
    rows, pixels = sample(model)
    with torch.no_grad():
        whole = model(rows.ids, pixel_values=pixels, attention_mask=rows.mask, output_hidden_states=True)
        seen = ProjectedModel(model, frozen=frozen).run(rows, [0, 1, 3])
    start = len(PREFIX) if frozen else 0
    there = rows.mask[:, start:].bool()
    for layer, states in seen.states.items():
        expected = whole.hidden_states[layer][:, start:]
        torch.testing.assert_close(states[there], expected[there], atol=1e-5, rtol=1e-4)
    wanted = rows.targets != IGNORED
    expected = F.cross_entropy(whole.logits[wanted], rows.targets[wanted], reduction="none")
    torch.testing.assert_close(seen.losses, expected, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_projector_and_nothing_else():
    model = tiny_llava()
    projected = ProjectedModel(model)
    frozen_but(model, list(projected.projector.parameters()))
    rows, _ = sample(model)
    seen = projected.run(rows, [2])
    (seen.losses.sum() + seen.states[2].square().sum()).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched and all("multi_modal_projector" in name for name in touched)


def test_in_16_bits_the_projector_stays_in_32():
    model = tiny_llava(dtype=torch.bfloat16)
    rows, _ = sample(model)
    projected = ProjectedModel(model)
    assert projected.projector.linear_1.weight.dtype == torch.float32
    seen = projected.run(rows, [1])
    assert seen.states[1].dtype == torch.bfloat16 and seen.losses.dtype == torch.float32
    assert seen.losses.isfinite().all()


def test_features_of_another_size_are_refused():
    model = tiny_llava()
    rows, _ = sample(model)
    fewer = Rows(rows.ids, rows.mask, rows.image, rows.targets, rows.features[:, :-1], rows.shared)
    with pytest.raises(ModelError, match="image tokens"):
        ProjectedModel(model).run(fewer, [1])


def test_putting_on_lora_says_nothing(recwarn):
    add_lora(tiny_llava(), Lora(rank=2))
    assert [str(one.message) for one in recwarn] == []


def test_lora_begins_as_no_change_and_sits_in_the_language_model_alone(tmp_path):
    model = tiny_llava()
    rows, _ = sample(model)
    before = ProjectedModel(model, frozen=False).run(rows, [4]).losses
    state = torch.get_rng_state()
    adapted = add_lora(model, Lora(rank=2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(ProjectedModel(model, frozen=False).run(rows, [4]).losses, before)
    trained = lora_parameters(adapted)
    assert len(trained) == 4 * 4 * 2 and all("language_model" in name for name in trained)
    frozen_but(model, [*trained.values(), *projector_of(model).parameters()])
    ProjectedModel(model, frozen=False).run(rows, [4]).losses.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in trained.values())
    folder = write_lora(adapted, tmp_path / "lora", base="local")
    assert (folder / "adapter_model.safetensors").is_file()
    assert "README.md" not in {p.name for p in folder.iterdir()}
    with pytest.raises(ModelError, match="no_such"):
        add_lora(tiny_llava(), Lora(targets=("no_such",)))
