import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import ModelError
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from tests.tiny import tiny_llama


@pytest.fixture
def source(tiny_folder: Path) -> ModelSource:
    return ModelSource("local", tiny_folder)


def with_config(source: ModelSource, folder: Path, **fields: Any) -> ModelSource:
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return ModelSource("local", folder)


def test_auto_is_decided(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Runtime().resolve(source) == Runtime("hooks", "fp32", "cpu", "auto")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Runtime().resolve(source).device == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Runtime().resolve(source).device == "cuda"


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({}, "fp32"),
        ({"dtype": "bfloat16"}, "bf16"),
        ({"torch_dtype": "float16"}, "fp16"),
        ({"dtype": "torch.bfloat16"}, "bf16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bf16"),
        ({"dtype": "float32", "text_config": {"dtype": "bfloat16"}}, "fp32"),
        ({"dtype": None}, "fp32"),
    ],
)
def test_auto_is_the_checkpoint_s_dtype(
    source: ModelSource, tmp_path: Path, fields: dict[str, Any], dtype: str
) -> None:
    assert Runtime(device="cpu").resolve(with_config(source, tmp_path, **fields)).dtype == dtype


def test_a_dtype_of_the_checkpoint_that_is_not_known_is_named(source: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"unknown dtype 'float8_e4m3fn'.*bf16, fp32, fp16"):
        Runtime().resolve(with_config(source, tmp_path, dtype="float8_e4m3fn"))


@pytest.mark.parametrize("spelling", ["bf16", "bfloat16"])
def test_both_spellings_of_a_dtype(source: ModelSource, spelling: str) -> None:
    assert Runtime(dtype=spelling).resolve(source).dtype == "bf16"


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (Runtime(backend="keras"), "unknown backend 'keras'; choose one of hooks"),
        (Runtime("transformer_lens", attention="sdpa"), "has no attention 'sdpa', only eager"),
        (Runtime(dtype="int4"), "unknown dtype 'int4'; choose auto or one of bf16"),
        (Runtime(device="gpu"), "unknown device 'gpu'; choose auto, cpu, cuda"),
        (Runtime(device="meta"), "unknown device 'meta'"),
        (Runtime(device="cuda:x"), "unknown device 'cuda:x'"),
        (Runtime(device=""), "unknown device ''"),
        (Runtime(device="cuda"), "device 'cuda' is not here"),
        (Runtime(device="cuda:7"), "device 'cuda:7' is not here"),
        (Runtime(device="mps"), "device 'mps' is not here"),
        (Runtime(device="cpu:1"), "device 'cpu:1' is not here"),
    ],
)
def test_what_is_not_known_or_not_here(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=message):
        runtime.resolve(source)


def test_a_graphics_card_that_is_not_there(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Runtime(device="cuda:1").resolve(source).device == "cuda:1"
    with pytest.raises(ModelError, match="'cuda:2' is not here"):
        Runtime(device="cuda:2").resolve(source)


def test_of_a_model_in_memory() -> None:
    model = tiny_llama()
    assert Runtime.of_module(model) == Runtime("hooks", "fp32", "cpu", "sdpa")
    model.set_attn_implementation("eager")
    assert Runtime.of_module(model.half()) == Runtime("hooks", "fp16", "cpu", "eager")
