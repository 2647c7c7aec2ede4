import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.adapter import Batch
from interp.models.hooks import HooksAdapter
from interp.models.identity import ModelIdentity
from interp.models.runtime import Runtime
from tests.models.architectures import NAMES, PADDINGS, batch_of, model_of
from tests.tiny import make_tokenizer, tiny, tiny_llama

NOBODY = ModelIdentity("local", "", "", "", "", "", "")
TOLERANCE = 1e-5


def adapter_of(model: Any) -> HooksAdapter:
    return HooksAdapter(model, None, NOBODY, Runtime("hooks", "fp32", "cpu", "auto"))


def everything(adapter: HooksAdapter) -> list[int]:
    return list(range(adapter.n_layers + 1))


@torch.no_grad()
def reference(model: Any, batch: Batch) -> Any:
    """What transformers itself gives for a batch; models with ALiBi know no position ids."""
    places = {"position_ids": batch.position_ids}
    takes = "position_ids" in inspect.signature(model.forward).parameters
    return model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        output_hidden_states=True,
        **(places if takes else {}),
    )


def gather(states: Tensor, batch: Batch) -> Tensor:
    return states[torch.arange(len(batch.ids))[:, None], batch.at]


def hooks_in(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_states_and_logits_are_the_model_s_own(name: str, padding: str) -> None:
    model, batch = model_of(name), batch_of(padding)
    adapter = adapter_of(model)
    expected = reference(model, batch)
    states = adapter.states(batch, everything(adapter))
    assert states.shape == (3, adapter.n_layers + 1, 2, adapter.d_model)
    for layer in range(adapter.n_layers):
        hidden = gather(expected.hidden_states[layer], batch)
        assert (states[:, layer] - hidden).abs().max() < TOLERANCE, layer
    readout = adapter.readout()
    logits = readout.logits(readout.normed(states[:, -1]))
    assert (logits - gather(expected.logits, batch)).abs().max() < TOLERANCE
    # Layers that hardly differ would let a wrong numbering pass.
    assert all((states[:, i] - states[:, i + 1]).abs().max() > 1e-2 for i in range(adapter.n_layers))
    assert logits.abs().max() > 0.05


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_matter(name: str, padding: str) -> None:
    adapter, batch = adapter_of(model_of(name)), batch_of(padding)
    states = adapter.states(batch, everything(adapter))
    for row in range(3):
        real = batch.mask[row].bool()
        ids = batch.ids[row][real][None]
        alone = Batch(ids, torch.ones_like(ids), batch.at[row][None] - real.long().argmax())
        assert (adapter.states(alone, everything(adapter))[0] - states[row]).abs().max() < TOLERANCE


@pytest.mark.parametrize(("padding", "same"), [("none", 1), ("none", 6), ("right", 2)])
@pytest.mark.parametrize("name", NAMES)
def test_shared_tokens_change_nothing(name: str, padding: str, same: int) -> None:
    adapter, batch = adapter_of(model_of(name)), batch_of(padding, same=same)
    plain = adapter.states(batch, everything(adapter))
    for _ in range(2):  # the second time from what was kept
        shared = adapter.states(replace(batch, shared=same), everything(adapter))
        assert (shared - plain).abs().max() < TOLERANCE


def test_other_shared_tokens_are_computed_anew() -> None:
    adapter = adapter_of(model_of("llama"))
    for seed in (1, 2, 1):
        batch = batch_of("none", same=4)
        batch.ids[:, :4] = seed + 10
        plain = adapter.states(batch, [3])
        assert (adapter.states(replace(batch, shared=4), [3]) - plain).abs().max() < TOLERANCE


def test_a_model_without_attention_does_not_share() -> None:
    model = tiny("mamba", hidden_size=32, num_hidden_layers=3, initializer_range=0.1)
    adapter, batch = adapter_of(model), batch_of("right", same=2)
    plain = adapter.states(batch, everything(adapter))
    assert torch.equal(adapter.states(replace(batch, shared=2), everything(adapter)), plain)


@pytest.mark.parametrize("layers", [[0], [1], [3], [0, 2], [1, 2, 3]])
def test_a_subset_of_layers(layers: list[int]) -> None:
    adapter, batch = adapter_of(model_of("qwen2")), batch_of("right")
    full = adapter.states(batch, everything(adapter))
    assert torch.equal(adapter.states(batch, layers), full[:, layers])


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_nothing_runs_above_the_last_layer(last: int) -> None:
    model = tiny_llama(num_hidden_layers=3)
    adapter = adapter_of(model)
    ran = []
    for i, block in enumerate(adapter.anatomy.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    for name in ("norm", "head"):
        part = {"norm": model.model.norm, "head": model.lm_head}[name]
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
    adapter.states(batch_of("none"), [last])
    assert ran == list(range(max(last, 1)))


def test_no_hook_stays() -> None:
    model = model_of("llama")
    before = hooks_in(model)
    adapter_of(model).states(batch_of("right"), [0, 1, 3])
    adapter_of(model).readout()
    assert hooks_in(model) == before


@pytest.fixture
def breaking() -> Iterator[tuple[Any, list[int]]]:
    """A model whose block ``place[0]`` raises."""
    model, place = tiny_llama(num_hidden_layers=3), [-1]
    for i, block in enumerate(model.model.layers):
        plain = block.mlp.forward

        def forward(x: Tensor, i: int = i, plain: Any = plain) -> Tensor:
            if i == place[0]:
                raise RuntimeError("broken block")
            return plain(x)

        block.mlp.forward = forward
    yield model, place


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_no_hook_stays_after_an_error(breaking: tuple[Any, list[int]], layer: int) -> None:
    model, place = breaking
    adapter, batch = adapter_of(model), batch_of("none")
    expected = adapter.states(batch, everything(adapter))
    place[0] = layer
    with pytest.raises(RuntimeError, match="broken block"):
        adapter.states(batch, everything(adapter))
    assert hooks_in(model) == 0
    place[0] = -1
    assert torch.equal(adapter.states(batch, everything(adapter)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_itself_is_left_as_it_was(name: str) -> None:
    model, batch = model_of(name), batch_of("left", same=2)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    before = reference(model, batch).logits
    adapter = adapter_of(model)
    adapter.states(batch_of("right"), everything(adapter))
    adapter.states(replace(batch_of("none", same=2), shared=2), [2])
    adapter.readout()
    assert torch.equal(reference(model, batch).logits, before)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_a_block_that_runs_twice_is_refused() -> None:
    model = tiny_llama(num_hidden_layers=2)
    adapter = adapter_of(model)
    block, plain = model.model.layers[0], model.model.layers[1].mlp.forward
    # The second block calls the first one again, as models with shared blocks do.
    model.model.layers[1].mlp.forward = lambda x: plain(block(x, position_embeddings=rope(model, x)))
    with pytest.raises(ModelError, match="ran twice"):
        adapter.states(batch_of("none"), [1, 2])


def rope(model: Any, x: Tensor) -> Any:
    return model.model.rotary_emb(x, torch.arange(x.shape[1])[None])


def test_a_block_that_does_not_run_is_refused() -> None:
    model = tiny_llama(num_hidden_layers=2)
    adapter = adapter_of(model)
    model.model.config.num_hidden_layers = 1  # the decoder runs as many blocks as this says
    with pytest.raises(ModelError, match=r"layers \[2\] did not run"):
        adapter.states(batch_of("none"), [1, 2])


class Doubled(nn.Linear):
    """A head whose logits are not the weight times the state."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(("dtype", "cap"), [(torch.float32, 100.0), (torch.bfloat16, 8.0)])
def test_an_unknown_output_path_is_refused(dtype: torch.dtype, cap: float) -> None:
    """Also in bf16 and with a cap of the logits that changes them less than rounding does in a float32 readout."""
    model = tiny_llama().to(dtype)
    adapter_of(model).readout()
    plain = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = cap * torch.tanh(output.logits / cap)
        return output

    model.forward = capped
    with pytest.raises(ModelError, match="output path is not known"):
        adapter_of(model).readout()


def test_a_head_with_a_forward_of_its_own_is_refused() -> None:
    model = tiny_llama()
    model.lm_head = Doubled(32, model.config.vocab_size, bias=False)
    with pytest.raises(ModelError, match="misses its logits"):
        adapter_of(model).readout()


@pytest.mark.parametrize(("name", "field"), [("gemma2", "final_logit_softcapping"), ("granite", "logits_scaling")])
def test_scale_and_softcap_are_the_model_s(name: str, field: str) -> None:
    model = model_of(name)
    adapter = adapter_of(model)
    hidden = type(adapter.anatomy.text_config)(**{**model.config.to_dict(), field: 1.0})
    adapter.anatomy = replace(adapter.anatomy, text_config=hidden)
    with pytest.raises(ModelError, match="output path is not known"):
        adapter.readout()


def test_bf16_states_are_bf16_and_the_readout_is_float32() -> None:
    model = tiny_llama().to(torch.bfloat16)
    adapter = adapter_of(model)
    states = adapter.states(batch_of("right"), [4])
    readout = adapter.readout()
    assert states.dtype == torch.bfloat16
    assert readout.normed(states).dtype == readout.logits(readout.normed(states)).dtype == torch.float32
    assert readout.weight.dtype == torch.bfloat16
    assert next(model.parameters()).dtype == torch.bfloat16


def test_an_encoder_decoder_is_refused() -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=50))
    with pytest.raises(ModelError, match="only decoders"):
        adapter_of(model)


def test_of_module_knows_what_it_runs() -> None:
    adapter = HooksAdapter.of_module(tiny_llama().to(torch.bfloat16), make_tokenizer(), name="mine")
    assert adapter.runtime.dtype == "bf16"
    assert adapter.runtime.device == "cpu"
    assert adapter.identity.name == "mine"
    assert adapter.identity.weights != HooksAdapter.of_module(tiny_llama(1), make_tokenizer()).identity.weights
