import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from interp.errors import ModelError
from interp.models.load import load, load_random_twin
from interp.models.runtime import BACKENDS, Runtime
from interp.models.source import ModelSource
from tests.models.architectures import batch_of

CPU = Runtime(dtype="fp32", device="cpu")


def test_a_twin_has_the_shape_of_the_model_and_nothing_it_learnt(tiny_folder: Path) -> None:
    source = ModelSource("org/model", tiny_folder, revision="abc")
    model, twin = load(source, CPU), load_random_twin(source, CPU, seed=3)
    assert (twin.n_layers, twin.d_model) == (model.n_layers, model.d_model)
    assert twin.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    own, other = (adapter.states(batch_of("right"), [0, 4]) for adapter in (model, twin))
    assert own.shape == other.shape and not torch.allclose(own, other, atol=0.1)
    changed = {k for k, v in asdict(model.identity).items() if asdict(twin.identity)[k] != v}
    assert changed == {"name", "revision", "weights"}
    assert twin.identity.name == "random twin of org/model"


def test_a_twin_of_a_model_with_an_adapter_has_none(tiny_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from tests.tiny import tiny_llama

    get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    source = ModelSource("local", tiny_folder)
    adapted = load_random_twin(replace(source, adapter=tmp_path / "lora"), CPU)
    assert adapted.identity == load_random_twin(source, CPU).identity


def test_the_seed_decides_and_the_process_goes_on_as_if_nothing_had_been_drawn(tiny_folder: Path) -> None:
    source = ModelSource("local", tiny_folder)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (load_random_twin(source, CPU, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    batch = batch_of("right")
    assert torch.equal(first.states(batch, [4]), again.states(batch, [4]))
    assert first.identity == again.identity != other.identity


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_reads_the_same_twin(tiny_folder: Path, backend: str) -> None:
    source = ModelSource("local", tiny_folder)
    found = load_random_twin(source, Runtime(backend, "fp32", "cpu"))
    expected = load_random_twin(source, CPU)
    assert found.identity == expected.identity
    torch.testing.assert_close(
        found.states(batch_of("right"), [2]), expected.states(batch_of("right"), [2]), atol=1e-5, rtol=1e-4
    )


def test_a_configuration_that_makes_no_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "config.json").write_text('{"model_type": "unheard-of", "dtype": "float32"}')
    with pytest.raises(ModelError, match="random twin"):
        load_random_twin(ModelSource("local", folder), CPU)
