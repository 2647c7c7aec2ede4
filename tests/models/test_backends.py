import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import ModelError
from interp.models.adapter import Adapter
from interp.models.encoding import Encoder
from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts.prompt import user_prompt
from tests.models.architectures import NAMES, PADDINGS, batch_of, folder_of
from tests.models.templates import BYTE_LEVEL
from tests.models.vocabularies import byte_level
from tests.tiny import save_tiny

# What TransformerLens 4.3 does not read, and why; a newer one that does makes the test of these fail.
UNREAD = {
    "persimmon": "can not read this model",  # no such architecture there
    "falcon_alibi": "computes other states",  # it leaves the ALiBi bias out of attention
}
BACKENDS = ("transformer_lens", "nnsight")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.fixture(autouse=True)
def no_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    """TransformerLens calls pip when it misses a package."""

    def refuse(*command: Any, **_: Any) -> None:
        pytest.fail(f"started {command}")

    for name in ("check_call", "check_output", "run", "Popen"):
        monkeypatch.setattr(subprocess, name, refuse)


def open_with(backend: str, folder: Path) -> Adapter:
    return load(ModelSource("local", folder), Runtime(backend, "fp32", "cpu"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_states_and_logits_as_hooks(name: str, backend: str, root: Path, record_property: Any) -> None:
    folder = folder_of(name, root)
    if backend == "transformer_lens" and name in UNREAD:
        with pytest.raises(ModelError, match=UNREAD[name]):
            open_with(backend, folder)
        return
    hooks, other = open_with("hooks", folder), open_with(backend, folder)
    assert (hooks.n_layers, hooks.d_model) == (other.n_layers, other.d_model)
    assert hooks.identity == other.identity
    layers = list(range(hooks.n_layers + 1))
    gaps = []
    for padding in PADDINGS:
        batch = batch_of(padding)
        states = hooks.states(batch, layers)
        gaps.append((other.states(batch, layers) - states).abs().max().item())
        gaps.append((other.states(batch, layers[1:3]) - states[:, 1:3]).abs().max().item())
        gaps.append((other.states(batch, [0]) - states[:, :1]).abs().max().item())
        ours, theirs = hooks.readout(), other.readout()
        logits = ours.logits(ours.normed(states))
        gaps.append((theirs.logits(theirs.normed(states)) - logits).abs().max().item())
    record_property("largest", max(gaps))
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16(backend: str, tmp_path: Path) -> None:
    source = ModelSource("local", save_tiny(tmp_path))
    hooks, other = (load(source, Runtime(b, "bf16", "cpu")) for b in ("hooks", backend))
    batch = batch_of("right")
    expected, found = hooks.states(batch, [0, 2, 4]), other.states(batch, [0, 2, 4])
    assert expected.dtype == found.dtype == torch.bfloat16
    assert (expected.float() - found.float()).norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tokenizer_is_left_as_it_was(backend: str, tmp_path: Path) -> None:
    """Both libraries set special tokens or the padding side of a tokenizer that they are given."""
    tokenizer = byte_level("chatml")
    for token in ("bos_token", "pad_token"):
        setattr(tokenizer, token, None)
    tokenizer.chat_template = "{{ bos_token }}" + BYTE_LEVEL["chatml"].template
    save_tiny(tmp_path, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path)
    plain, other = open_with("hooks", tmp_path).tokenizer, open_with(backend, tmp_path).tokenizer
    assert (plain.bos_token, plain.pad_token) == (other.bos_token, other.pad_token)
    assert plain.padding_side == other.padding_side
    assert plain.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    prompts = [user_prompt("p", "How do I bake bread?")]
    assert Encoder(plain).encode(prompts, ["t_inst"]) == Encoder(other).encode(prompts, ["t_inst"])
