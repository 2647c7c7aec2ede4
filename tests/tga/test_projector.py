import json
from dataclasses import replace

import pytest
import torch

from interp.errors import ModelError, ModelMismatch, UsageError
from interp.models.load import load
from interp.models.lora import Lora, add_lora, lora_parameters, write_lora
from interp.models.projected import projector_of
from interp.models.projector_file import RECORD, TENSORS, load_projector, owner_of, read_projector
from interp.models.source import ModelSource
from interp.tga.projector import write_projector
from tests.sights import SIDE, save_tiny_llava
from tests.tga.seeing import tiny_llava
from tests.tiny import tiny_llama


def write(model, folder, **known):
    known = {"variant": "paper", "training": "t", **known}
    return write_projector(projector_of(model), folder, owner=owner_of(model), **known)


@pytest.fixture
def written(tmp_path):
    model = tiny_llava()
    with torch.no_grad():
        for parameter in projector_of(model).parameters():
            parameter.add_(1.0)
    return model, write(model, tmp_path / "p", about={"steps": 3})


def test_it_goes_back_into_the_model_it_belongs_to(written):
    trained, folder = written
    model = tiny_llava()
    record = load_projector(model, folder)
    assert (record["variant"], record["training"], record["about"]) == ("paper", "t", {"steps": 3})
    for name, tensor in projector_of(trained).state_dict().items():
        assert torch.equal(projector_of(model).state_dict()[name], tensor)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        theirs, ours = (m.get_image_features(pixel_values=pixels).pooler_output for m in (trained, model))
    assert torch.equal(theirs[0], ours[0])


def test_a_model_is_the_same_in_another_dtype(written):
    _, folder = written
    # What was stored in 16 bits is the same in 32; the model is made of such numbers here.
    half = tiny_llava(dtype=torch.bfloat16)
    folder = write(half, folder.parent / "half")
    load_projector(half.float(), folder)
    load_projector(half.bfloat16(), folder)
    assert projector_of(half).linear_1.weight.dtype == torch.bfloat16


def test_another_model_or_shape_is_refused_by_the_field_that_differs(written, tmp_path):
    _, folder = written
    with pytest.raises(ModelMismatch, match=r"model\.weights"):
        load_projector(tiny_llava(seed=1), folder)
    with pytest.raises(ModelMismatch, match=r"model\.architecture"):
        load_projector(tiny_llama(), folder)
    with pytest.raises(ModelMismatch, match=r"model\.config"):
        load_projector(tiny_llava(rms_norm_eps=1e-3), folder)
    with pytest.raises(ModelError, match="0 modules"):
        projector_of(tiny_llama())
    model = tiny_llava()
    other = torch.nn.Linear(16, 40)
    model.model.multi_modal_projector.linear_1 = other
    with pytest.raises(ModelMismatch, match=r"linear_1\.(weight|bias)"):
        load_projector(model, folder)


def test_damaged_files_are_refused(written):
    _, folder = written
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).chmod(0o644)
    (folder / TENSORS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UsageError, match="sha256"):
        read_projector(folder)
    (folder / TENSORS).write_bytes(data[:100])
    with pytest.raises(UsageError, match="again"):
        read_projector(folder)
    (folder / TENSORS).write_bytes(data)
    read_projector(folder)
    for text in ("no json", json.dumps({"format": "other"}), json.dumps({"format": "interp projector", "version": 1})):
        (folder / RECORD).chmod(0o644)
        (folder / RECORD).write_text(text)
        with pytest.raises(UsageError):
            read_projector(folder)
    with pytest.raises(UsageError, match="folder of a projector"):
        read_projector(folder / "none")


def test_a_training_is_put_on_its_model_as_an_adapter_is(tmp_path):
    folder = save_tiny_llava(tmp_path / "model")
    plain = ModelSource("local", folder)
    model = load(plain).model
    lora = add_lora(model, Lora(rank=2, targets=("q_proj",)))
    with torch.no_grad():
        for parameter in (*projector_of(model).parameters(), *lora_parameters(lora).values()):
            parameter.add_(0.1)
    write_projector(
        projector_of(model),
        tmp_path / "run" / "projector",
        owner=owner_of(load(plain).model),
        variant="paper",
        training="t",
    )
    trained = replace(plain, adapter=tmp_path / "run")
    before, projected = plain.identify(), trained.identify()
    assert projected.adapter and not before.adapter and replace(projected, adapter="") == before
    found = load(trained)
    assert found.identity == projected
    for name, tensor in projector_of(found.model).state_dict().items():
        torch.testing.assert_close(tensor, projector_of(model).state_dict()[name])
    write_lora(lora, tmp_path / "run" / "lora", base="local")
    assert trained.identify().adapter.startswith(projected.adapter) and trained.identify() != projected
    both = load(trained).model
    asked = {"input_ids": torch.tensor([[5, 6, 7]])}
    torch.testing.assert_close(both(**asked).logits, model(**asked).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both(**asked).logits, found.model(**asked).logits, atol=1e-3)


def test_a_projector_of_another_model_is_not_put_on(tmp_path):
    one, other = (save_tiny_llava(tmp_path / str(seed), seed) for seed in (0, 1))
    model = load(ModelSource("local", one)).model
    write_projector(
        projector_of(model), tmp_path / "run" / "projector", owner=owner_of(model), variant="paper", training="t"
    )
    with pytest.raises(ModelMismatch, match="weights"):
        load(ModelSource("local", other, adapter=tmp_path / "run"))
    (tmp_path / "run" / "projector" / TENSORS).unlink()
    with pytest.raises(ModelError, match=TENSORS):
        ModelSource("local", one, adapter=tmp_path / "run").identify()
