import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import ModelError
from interp.models.hooks import HooksAdapter
from interp.models.load import count_blocks, load
from interp.models.runtime import BACKENDS, Runtime
from interp.models.source import ModelSource
from tests.models.architectures import batch_of
from tests.tiny import make_tokenizer, tiny, tiny_llama

CPU = Runtime(dtype="fp32", device="cpu")
ADAPTER, WEIGHTS = "adapter_model.safetensors", "model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_tensors(path: Path, **tensors: torch.Tensor | None) -> None:
    changed = {**load_file(path), **tensors}
    save_file({k: v for k, v in changed.items() if v is not None}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "auto"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_behind_every_backend(tiny_folder: Path, backend: str, dtype: str) -> None:
    source = ModelSource("local", tiny_folder)
    adapter = load(source, Runtime(backend, dtype, "cpu"))
    resolved = "fp32" if dtype == "auto" else dtype
    assert adapter.runtime == Runtime(backend, resolved, "cpu")
    assert (adapter.n_layers, adapter.d_model) == (4, 32)
    assert adapter.identity == source.identify()
    assert len(adapter.tokenizer) == len(make_tokenizer())
    assert adapter.tokenizer.chat_template == make_tokenizer().chat_template
    model = tiny_llama().to({"fp32": torch.float32, "bf16": torch.bfloat16}[resolved])
    expected = HooksAdapter.of_module(model, make_tokenizer()).states(batch_of("right"), [0, 2, 4])
    found = adapter.states(batch_of("right"), [0, 2, 4])
    assert found.dtype == expected.dtype
    gap = (found.float() - expected.float()).norm() / expected.float().norm()
    assert gap < (1e-6 if resolved == "fp32" else 2e-2)
    assert adapter.readout().vocab == model.config.vocab_size


def test_what_is_loaded_does_not_depend_on_where_it_lies(folder: Path, tmp_path: Path) -> None:
    states = load(ModelSource("local", folder), CPU).states(batch_of("none"), [4])
    moved = folder.rename(tmp_path / "elsewhere")
    assert torch.equal(load(ModelSource("local", moved), CPU).states(batch_of("none"), [4]), states)


def test_a_model_in_many_files(folder: Path) -> None:
    states = load(ModelSource("local", folder), CPU).states(batch_of("none"), [4])
    (folder / WEIGHTS).unlink()
    tiny_llama().save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert torch.equal(load(ModelSource("local", folder), CPU).states(batch_of("none"), [4]), states)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_the_one_asked_for(tiny_folder: Path, attention: str) -> None:
    adapter = load(ModelSource("local", tiny_folder), Runtime("hooks", "fp32", "cpu", attention))
    assert isinstance(adapter, HooksAdapter)
    assert adapter.model.config._attn_implementation == attention


def test_an_attention_that_does_not_exist(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="could not load the model"):
        load(ModelSource("local", tiny_folder), Runtime("hooks", "fp32", "cpu", "sparse"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pickled_weights_are_refused_unread(folder: Path, backend: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"would run code")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(ModelSource("local", folder), Runtime(backend, "fp32", "cpu"))


def test_weights_that_lack_tensors_are_refused(folder: Path) -> None:
    """Transformers makes up random numbers for them."""
    edit_tensors(folder / WEIGHTS, **{"model.layers.2.mlp.up_proj.weight": None})
    with pytest.raises(ModelError, match=r"lack 1 tensors, such as model\.layers\.2\.mlp\.up_proj\.weight"):
        load(ModelSource("local", folder), CPU)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", intermediate_size=48)
    with pytest.raises(ModelError, match="could not load the model"):
        load(ModelSource("local", folder), CPU)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "no_such_model"}'])
def test_a_broken_configuration(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=str(folder)):
        load(ModelSource("local", folder), CPU)
    with pytest.raises(ModelError, match="configuration can not be read"):
        count_blocks(ModelSource("local", folder))


def test_a_cut_file_is_refused_before_the_model_is_built(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"ends in the middle of .*fetch the model again"):
        load(ModelSource("local", folder), CPU)


@pytest.mark.parametrize("what", ["broken", "missing", "no JSON object"])
def test_a_tokenizer_that_can_not_be_read(folder: Path, what: str) -> None:
    tokenizer = folder / "tokenizer.json"
    if what == "missing":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        tokenizer.write_text('{"model": 1' if what == "broken" else '{"model": 1}')
    with pytest.raises(ModelError, match="tokenizer"):
        load(ModelSource("local", folder), CPU)


def test_a_slow_tokenizer_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    class Slow:
        is_fast = False

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(ModelError, match="has no fast version"):
        load(ModelSource("local", folder), CPU)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_encoder_is_refused(tmp_path: Path, backend: str) -> None:
    model = tiny(
        "bert",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        is_decoder=True,
    )
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="only decoders"):
        load(ModelSource("local", tmp_path), Runtime(backend, "fp32", "cpu"))


def test_count_blocks(tiny_folder: Path) -> None:
    assert count_blocks(ModelSource("local", tiny_folder)) == 4


@pytest.fixture
def lora(tmp_path: Path) -> tuple[Path, Any]:
    """A LoRA folder with random weights, and the logits of the model that peft makes of it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(tiny_llama(), config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    batch = batch_of("right")
    with torch.no_grad():
        logits = adapted(input_ids=batch.ids, attention_mask=batch.mask).logits
    return tmp_path / "lora", logits[torch.arange(3)[:, None], batch.at]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_adapter_is_merged(tiny_folder: Path, lora: tuple[Path, Any], backend: str) -> None:
    folder, logits = lora
    runtime = Runtime(backend, "fp32", "cpu")
    plain = load(ModelSource("local", tiny_folder), runtime)
    adapter = load(ModelSource("local", tiny_folder, adapter=folder), runtime)
    readout = adapter.readout()
    found = readout.logits(readout.normed(adapter.states(batch_of("right"), [4])[:, 0]))
    # peft adds the product of its two matrices to the output, here it is added to the weights.
    assert (found - logits).abs().max() < 1e-5 * max(1.0, logits.abs().max().item())
    plain_readout = plain.readout()
    other = plain_readout.logits(plain_readout.normed(plain.states(batch_of("right"), [4])[:, 0]))
    assert (other - logits).abs().max() > 1e-1
    assert adapter.identity != plain.identity
    assert adapter.identity.weights == plain.identity.weights
    assert adapter.identity.adapter


def test_loading_an_adapter_says_nothing(tiny_folder: Path, lora: tuple[Path, Any], recwarn: Any) -> None:
    load(adapted_source(tiny_folder, lora[0]), Runtime("hooks", "fp32", "cpu"))
    assert [str(one.message) for one in recwarn] == []


def adapted_source(tiny_folder: Path, folder: Path) -> ModelSource:
    return ModelSource("local", tiny_folder, adapter=folder)


def test_an_adapter_for_other_modules(tiny_folder: Path, lora: tuple[Path, Any]) -> None:
    edit_json(lora[0] / "adapter_config.json", target_modules=["query_key_value"])
    with pytest.raises(ModelError, match="does not fit local"):
        load(adapted_source(tiny_folder, lora[0]), CPU)


def test_an_adapter_of_another_width(tiny_folder: Path, lora: tuple[Path, Any]) -> None:
    tensors = load_file(lora[0] / ADAPTER)
    save_file({k: v.repeat(2, 2) for k, v in tensors.items()}, lora[0] / ADAPTER)
    with pytest.raises(ModelError, match="does not fit local"):
        load(adapted_source(tiny_folder, lora[0]), CPU)


@pytest.mark.parametrize("kept", [lambda k: "layers.3." not in k, lambda k: "lora_A" in k])
def test_an_adapter_that_leaves_modules_out(tiny_folder: Path, lora: tuple[Path, Any], kept: Any) -> None:
    """Such as one of a model with fewer blocks; peft warns only."""
    tensors = load_file(lora[0] / ADAPTER)
    save_file({k: v for k, v in tensors.items() if kept(k)}, lora[0] / ADAPTER)
    with pytest.raises(ModelError, match=r"does not fit local: \d+ tensors have no counterpart"):
        load(adapted_source(tiny_folder, lora[0]), CPU)


def test_an_adapter_of_a_deeper_model(tiny_folder: Path, lora: tuple[Path, Any]) -> None:
    """What peft has no place for it leaves out in silence."""
    tensors = load_file(lora[0] / ADAPTER)
    deeper = {k.replace("layers.3.", "layers.4."): v.clone() for k, v in tensors.items() if "layers.3." in k}
    save_file({**tensors, **deeper}, lora[0] / ADAPTER)
    with pytest.raises(ModelError, match="does not fit local"):
        load(adapted_source(tiny_folder, lora[0]), CPU)


@pytest.mark.parametrize(
    "config", [{"peft_type": "NOT_ONE"}, {"peft_type": "PROMPT_TUNING"}, {"r": "many"}, {"target_modules": None}]
)
def test_a_configuration_that_peft_can_not_use(
    tiny_folder: Path, lora: tuple[Path, Any], config: dict[str, Any]
) -> None:
    edit_json(lora[0] / "adapter_config.json", **config)
    with pytest.raises(ModelError, match="does not fit local"):
        load(adapted_source(tiny_folder, lora[0]), CPU)


def test_a_pickled_adapter_is_refused_unread(tiny_folder: Path, lora: tuple[Path, Any]) -> None:
    (lora[0] / ADAPTER).rename(lora[0] / "adapter_model.bin")
    with pytest.raises(ModelError, match="not a LoRA folder"):
        load(adapted_source(tiny_folder, lora[0]), CPU)
