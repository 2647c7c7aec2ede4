import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from interp.errors import ModelError
from interp.models.hooks import HooksAdapter
from interp.models.identity import ModelIdentity, digest_adapter, identify_folder, identify_module
from tests.tiny import make_tokenizer, tiny_llama

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def identify(folder: Path) -> ModelIdentity:
    return identify_folder(folder, name="local")


def changed(before: ModelIdentity, after: ModelIdentity) -> set[str]:
    return {k for k, v in asdict(before).items() if asdict(after)[k] != v}


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def split_weights(folder: Path, parts: int) -> None:
    """Spreads the weights over several files with an index, as large models come."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = {name: f"model-{i % parts:05d}-of-{parts:05d}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(names.values()):
        chosen = {k: tensors[k] for k, v in names.items() if v == file}
        save_file(chosen, folder / file, metadata={"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_it_is_made_of_digests_and_no_place(folder: Path) -> None:
    identity = identify_folder(folder, name="org/model", revision="abc")
    assert (identity.name, identity.revision, identity.adapter) == ("org/model", "abc", "")
    assert len(identity.weights) == 32
    assert all(len(d) == 64 for d in (identity.config, identity.tokenizer, identity.chat_template))
    assert str(folder) not in repr(identity)


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.3.mlp.up_proj.weight"]
)
def test_one_unit_in_the_last_place_changes_the_weights(folder: Path, name: str) -> None:
    before = identify(folder)
    tensors = load_file(folder / WEIGHTS)
    flat = tensors[name].view(-1)
    flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert changed(before, identify(folder)) == {"weights"}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {("b" if k == "model.norm.weight" else k): v for k, v in t.items()},
        lambda t: {k: v.to(torch.bfloat16) for k, v in t.items()},
        lambda t: {k: (v[None] if k == "model.norm.weight" else v) for k, v in t.items()},
        lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"},
        lambda t: {**t, "other": torch.zeros(1)},
        lambda t: {
            **t,
            "model.layers.0.mlp.up_proj.weight": t["model.layers.0.mlp.gate_proj.weight"],
            "model.layers.0.mlp.gate_proj.weight": t["model.layers.0.mlp.up_proj.weight"],
        },
    ],
    ids=["name", "dtype", "shape", "missing", "added", "swapped"],
)
def test_names_dtypes_and_shapes_count(folder: Path, change: Callable[[Any], Any]) -> None:
    before = identify(folder)
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
    assert changed(before, identify(folder)) == {"weights"}


def test_files_place_and_notes_do_not_count(folder: Path, tmp_path: Path) -> None:
    before = identify(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert identify(moved) == before
    save_file(load_file(moved / WEIGHTS), moved / WEIGHTS, metadata={"format": "pt", "note": "anything"})
    (moved / "README.md").write_text("Other words.")
    edit_json(moved / "config.json", transformers_version="9.9.9", _name_or_path="/home/someone/model")
    assert identify(moved) == before
    for parts in (2, 3):
        split_weights(moved, parts)
        assert identify(moved) == before
        merged = {}
        for path in moved.glob("model-*.safetensors"):
            merged |= load_file(path)
            path.unlink()
        (moved / f"{WEIGHTS}.index.json").unlink()
        save_file(merged, moved / WEIGHTS, metadata={"format": "pt"})
    with safe_open(moved / WEIGHTS, "pt") as file:
        assert len(file.keys()) > 10


def test_the_single_file_comes_before_an_index_as_in_transformers(folder: Path) -> None:
    before, kept = identify(folder), load_file(folder / WEIGHTS)
    split_weights(folder, 2)
    part = next(folder.glob("model-*.safetensors"))
    save_file({k: v + 1 for k, v in load_file(part).items()}, part, metadata={"format": "pt"})
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    assert identify(folder) == before


def test_configuration_tokenizer_and_template_change_their_own_digest(folder: Path) -> None:
    before = identify(folder)
    edit_json(folder / "config.json", rope_theta=5.0)
    assert changed(before, identify(folder)) == {"config"}
    before = identify(folder)
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    assert changed(before, identify(folder)) == {"tokenizer"}
    before = identify(folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert changed(before, identify(folder)) == {"chat_template"}


def test_a_template_inside_the_tokenizer_configuration(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert identify(folder).chat_template == ""
    edit_json(folder / "tokenizer_config.json", chat_template="{{ 1 }}")
    first = identify(folder).chat_template
    edit_json(folder / "tokenizer_config.json", chat_template="{{ 2 }}")
    assert first != identify(folder).chat_template != ""


@pytest.mark.parametrize("field", ["_name_or_path", "transformers_version"])
def test_volatile_fields_inside_a_nested_configuration(folder: Path, field: str) -> None:
    edit_json(folder / "config.json", text_config={"hidden_size": 1})
    before = identify(folder)
    edit_json(folder / "config.json", text_config={"hidden_size": 1, field: "x"})
    assert identify(folder) == before


def test_a_model_in_memory() -> None:
    one, other = tiny_llama(0), tiny_llama(1)
    identity = identify_module(one, make_tokenizer(), name="mine")
    assert identity == identify_module(tiny_llama(0), make_tokenizer(), name="mine")
    assert changed(identity, identify_module(other, make_tokenizer(), name="mine")) == {"weights"}
    template = identify_module(one, make_tokenizer("{{ 1 }}"), name="mine")
    assert changed(identity, template) == {"chat_template"}
    assert identify_module(one, make_tokenizer(""), name="mine").chat_template == ""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<new>"])
    assert changed(identity, identify_module(one, tokenizer, name="mine")) == {"tokenizer"}
    one.model.norm.weight.data[0] = torch.nextafter(one.model.norm.weight.data[0], torch.tensor(9.0))
    assert changed(identity, identify_module(one, make_tokenizer(), name="mine")) == {"weights"}
    assert HooksAdapter.of_module(other.to(torch.bfloat16), make_tokenizer()).identity.weights != identity.weights


def damage(folder: Path, how: str) -> None:
    weights, data = folder / WEIGHTS, (folder / WEIGHTS).read_bytes()
    if how == "empty":
        weights.write_bytes(b"")
    elif how == "short header":
        weights.write_bytes(data[:50])
    elif how == "cut at the end":
        weights.write_bytes(data[:-1])
    elif how == "cut in half":
        weights.write_bytes(data[: len(data) // 2])
    elif how == "a web page":
        weights.write_bytes(b"<!DOCTYPE html><html>" * 99)
    elif how == "header is no JSON":
        weights.write_bytes(data[:8] + b"\xff{" + data[10:])
    elif how == "missing":
        weights.unlink()
    elif how == "missing part":
        split_weights(folder, 3)
        (folder / "model-00001-of-00003.safetensors").unlink()
    elif how == "broken index":
        split_weights(folder, 2)
        (folder / f"{WEIGHTS}.index.json").write_text("{")
    elif how == "empty index":
        weights.unlink()
        (folder / f"{WEIGHTS}.index.json").write_text("{}")
    elif how == "broken config":
        (folder / "config.json").write_text("{'a': 1}")
    elif how == "config is a list":
        (folder / "config.json").write_text("[]")
    elif how == "binary config":
        (folder / "config.json").write_bytes(b"\xff\xfe")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "only pickled weights":
        weights.rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("empty", WEIGHTS),
        ("short header", WEIGHTS),
        ("cut at the end", WEIGHTS),
        ("cut in half", WEIGHTS),
        ("a web page", WEIGHTS),
        ("header is no JSON", WEIGHTS),
        ("missing", "neither model.safetensors nor its index"),
        ("missing part", "lacks model-00001-of-00003.safetensors"),
        ("broken index", "index.json: is not valid JSON"),
        ("empty index", "lists no weights"),
        ("broken config", "config.json: is not valid JSON"),
        ("config is a list", "config.json: holds no JSON object"),
        ("binary config", "config.json: is not valid JSON"),
        ("no config", "has no config.json"),
        ("only pickled weights", "pickled ones among them"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder: Path, how: str, names: str) -> None:
    damage(folder, how)
    with pytest.raises(ModelError, match=names) as caught:
        identify(folder)
    assert str(folder) in str(caught.value)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file({"a": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_is_part_of_the_identity(folder: Path, lora: Path) -> None:
    plain, adapted = identify(folder), identify_folder(folder, name="local", adapter=lora)
    assert changed(plain, adapted) == {"adapter"}
    config, before = lora / "adapter_config.json", digest_adapter(lora)
    edit_json(config, base_model_name_or_path="/elsewhere", inference_mode=False, peft_version="9")
    edit_json(config, target_modules=["v_proj", "q_proj"])
    assert digest_adapter(lora) == before
    for field, value in (("lora_alpha", 8), ("alpha_pattern", {"q_proj": 2}), ("target_modules", "q_proj")):
        kept = config.read_text()
        edit_json(config, **{field: value})
        assert digest_adapter(lora) != before
        config.write_text(kept)
    save_file({"a": torch.ones(2, 2) * 2}, lora / "adapter_model.safetensors")
    assert digest_adapter(lora) != before


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_half_an_adapter_is_refused(lora: Path, file: str) -> None:
    (lora / file).write_bytes((lora / file).read_bytes()[:9])
    with pytest.raises(ModelError, match=file):
        digest_adapter(lora)
    (lora / file).unlink()
    with pytest.raises(ModelError, match="not a LoRA folder"):
        digest_adapter(lora)
