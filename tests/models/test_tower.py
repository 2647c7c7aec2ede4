"""The vision tower out of an ONNX file, on a tiny network built here the way the exporter builds one."""

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.models import tower
from interp.models.tower import tower_of_onnx

TINY = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14}


def tiny_tower():
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(**TINY, initializer_range=0.5)).eval()


def exported(model, path, *, without=""):
    """Writes the weights as the exporter does: matrices transposed and nameless, found by the bias that is added."""
    import onnx
    from onnx import helper, numpy_helper

    constants, nodes = {}, []
    saved = model.save_pretrained(path.parent / "hub") or path.parent / "hub"
    from safetensors.torch import load_file

    for name, value in load_file(saved / "model.safetensors").items():
        if name in ("embeddings.mask_token", "embeddings.position_embeddings") or name == without:
            continue
        if name.endswith(".weight") and value.ndim == 2:
            matrix = f"onnx::MatMul_{len(nodes)}"
            constants[matrix] = value.T
            bias = name.removesuffix("weight") + "bias"
            nodes.append(helper.make_node("MatMul", ["x", matrix], [f"y{matrix}"]))
            nodes.append(helper.make_node("Add", [f"backbone.{bias}", f"y{matrix}"], [f"z{matrix}"]))
        else:
            constants[f"backbone.{name}"] = value
    positions = model.embeddings.position_embeddings.detach()
    constants |= {
        "onnx::Concat_1": positions[:, :1],
        "onnx::Reshape_2": positions[:, 1:],
        "decoder.bias": torch.ones(3),
    }
    nodes.append(helper.make_node("Concat", ["onnx::Concat_1", "p"], ["c"], axis=1))
    nodes.append(helper.make_node("Reshape", ["onnx::Reshape_2", "s"], ["p"]))
    stored = [numpy_helper.from_array(np.ascontiguousarray(t.numpy()), n) for n, t in constants.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], stored)), str(path))
    return path


def test_the_tower_is_the_network_it_was_exported_from(tmp_path):
    model = tiny_tower()
    read = tower_of_onnx(exported(model, tmp_path / "n.onnx"), **TINY)
    pixels = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected, found = (m(pixels, output_hidden_states=True).hidden_states for m in (model, read))
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_a_network_that_lacks_a_weight_is_refused(tmp_path):
    path = exported(tiny_tower(), tmp_path / "n.onnx", without="layernorm.weight")
    with pytest.raises(ModelError, match=r"layernorm\.weight"):
        tower_of_onnx(path, **TINY)


def test_offline_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr(tower, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ModelError, match="interp models fetch demo:llava"):
        tower.tower_folder(offline=True)
