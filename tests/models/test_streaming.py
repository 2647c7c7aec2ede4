from typing import Any

import pytest
import torch

from interp.errors import ModelError, UsageError
from interp.models.adapter import Batch
from interp.models.encoding import Encoder
from interp.models.generation import respond
from interp.models.hooks import HooksAdapter
from interp.models.streaming import Step, stream
from interp.prompts.prompt import user_prompt
from tests.models.architectures import model_of
from tests.tiny import make_tokenizer, tiny, tiny_llama

# Full and windowed attention, ALiBi, learned positions, experts, a recurrent state, and post-norm blocks.
NAMES = (
    "gpt2",
    "llama",
    "gemma2",
    "gemma3_text",
    "mistral",
    "opt",
    "bloom",
    "falcon_alibi",
    "gptj",
    "olmo2",
    "gpt_oss",
    "lfm2",
    "qwen3_5_text",
)
TOKENIZER = make_tokenizer()
PROMPT = user_prompt("p", "How do I bake bread?")
TOLERANCE = 1e-5


def adapter_of(model: Any) -> HooksAdapter:
    return HooksAdapter.of_module(model, TOKENIZER)


def prompt_ids() -> tuple[int, ...]:
    return Encoder(TOKENIZER).encode([PROMPT], ["t_post"])[0].ids


def in_one_pass(adapter: HooksAdapter, tokens: list[int], layer: int) -> torch.Tensor:
    """The states that predicted these tokens, from the whole text read at once."""
    ids = torch.tensor([[*prompt_ids(), *tokens]])
    at = torch.arange(len(prompt_ids()) - 1, ids.shape[1] - 1)[None]
    return adapter.states(Batch(ids, torch.ones_like(ids), at), [layer])[0, 0]


def hooks_in(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def endless(seed: int = 2) -> Any:
    model = tiny_llama(seed)
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_the_whole_text_read_at_once(name: str) -> None:
    adapter = adapter_of(model_of(name))
    for layer in (0, 2, adapter.n_layers):
        steps = list(stream(adapter, TOKENIZER, PROMPT, layer=layer, max_new_tokens=6))
        tokens = [step.token for step in steps]
        found = torch.stack([step.state for step in steps])
        assert (found - in_one_pass(adapter, tokens, layer)).abs().max() < TOLERANCE
        # The state is the one that the token was chosen from, not the one that the token makes.
        if layer == adapter.n_layers:
            readout = adapter.readout()
            assert readout.logits(readout.normed(found)).argmax(-1).tolist() == tokens


def test_a_model_that_keeps_no_cache_reads_the_text_anew() -> None:
    model = tiny("mamba", hidden_size=32, num_hidden_layers=3, initializer_range=0.1)
    adapter = adapter_of(model)
    steps = list(stream(model, TOKENIZER, PROMPT, layer=2, max_new_tokens=4))
    expected = in_one_pass(adapter, [s.token for s in steps], 2)
    assert (torch.stack([s.state for s in steps]) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_the_answer_is_what_the_model_generates(name: str) -> None:
    model = model_of(name)
    ids = torch.tensor([prompt_ids()])
    generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    steps = list(stream(model, TOKENIZER, PROMPT, layer=1, max_new_tokens=8))
    assert [step.token for step in steps] == generated[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_the_text_is_what_respond_gives(strength: float) -> None:
    model = tiny_llama(2)
    model.generation_config.eos_token_id = TOKENIZER.eos_token_id
    model.lm_head.weight.data[TOKENIZER.eos_token_id] *= strength
    for text in ("a", "面包 🍞", "Write a short letter to my neighbour about the noise of last night.", "b"):
        prompt = user_prompt(text, text)
        steps = list(stream(model, TOKENIZER, prompt, layer=1, max_new_tokens=12))
        [expected] = respond(model, TOKENIZER, [prompt], max_new_tokens=12)
        assert "".join(step.text for step in steps).strip() == expected
        assert all(step.token != TOKENIZER.eos_token_id for step in steps[:-1])


def test_an_empty_answer_is_one_step_that_ends_it() -> None:
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    model.generation_config.eos_token_id = [7, 0]  # the first of equals
    [step] = stream(model, TOKENIZER, PROMPT, layer=1)
    assert (step.token, step.text) == (0, "")
    assert (step.state - in_one_pass(adapter_of(model), [0], 1)[0]).abs().max() < TOLERANCE


class Scripted:
    """A model's tokenizer whose answers are bytes of our choosing."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return TOKENIZER(*args, **kwargs)

    def decode(self, tokens: list[int], **_: Any) -> str:
        return b"".join(self.pieces[: len(tokens)]).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ([b"a", "é".encode()[:1], "é".encode()[1:], b"b"], ["a", "", "é", "b"]),
        (["🍞".encode()[:2], "🍞".encode()[2:], b"!"], ["", "🍞", "!"]),
        ([b"a", "é".encode()[:1]], ["a", "\ufffd"]),  # the answer stops inside a character
    ],
)
def test_an_unfinished_character_waits_for_its_rest(pieces: list[bytes], texts: list[str]) -> None:
    steps = stream(endless(), Scripted(pieces), PROMPT, layer=1, max_new_tokens=len(pieces))
    assert [step.text for step in steps] == texts


def test_no_hook_is_there_between_steps_or_after_the_consumer_stops() -> None:
    model = endless()
    steps = stream(model, TOKENIZER, PROMPT, layer=1)
    assert hooks_in(model) == 0
    next(steps)
    assert hooks_in(model) == 0
    steps.close()
    assert hooks_in(model) == 0
    for step in stream(model, TOKENIZER, PROMPT, layer=1):
        assert isinstance(step, Step)
        break
    assert hooks_in(model) == 0


def test_the_consumer_may_use_the_model_between_steps() -> None:
    model = endless()
    plain = list(stream(model, TOKENIZER, PROMPT, layer=2, max_new_tokens=5))
    steps = []
    for step in stream(model, TOKENIZER, PROMPT, layer=2, max_new_tokens=5):
        steps.append(step)
        respond(model, TOKENIZER, [user_prompt("q", "a")], max_new_tokens=2)
    assert [s.token for s in steps] == [s.token for s in plain]
    assert all(torch.equal(a.state, b.state) for a, b in zip(steps, plain, strict=True))


@pytest.mark.parametrize("layer", [0, 1, 4])
def test_no_hook_stays_after_an_error(layer: int) -> None:
    model = endless()
    steps = stream(model, TOKENIZER, PROMPT, layer=layer)
    next(steps)
    plain = model.model.layers[2].mlp.forward

    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken block")

    model.model.layers[2].mlp.forward = broken
    with pytest.raises(RuntimeError, match="broken block"):
        next(steps)
    assert hooks_in(model) == 0
    model.model.layers[2].mlp.forward = plain


def test_states_are_float32_on_the_cpu_and_keep_no_graph() -> None:
    model = endless().to(torch.bfloat16)
    for step in stream(model, TOKENIZER, PROMPT, layer=1, max_new_tokens=2):
        assert step.state.dtype == torch.float32
        assert step.state.shape == (32,)
        assert step.state.device.type == "cpu"
        assert not step.state.requires_grad
    assert torch.is_grad_enabled()


def test_a_step_reads_one_token_only() -> None:
    model, lengths = endless(), []
    model.model.embed_tokens.register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    adapter = HooksAdapter.of_module(model, TOKENIZER)
    lengths.clear()
    list(stream(adapter, TOKENIZER, PROMPT, layer=1, max_new_tokens=4))
    assert lengths == [len(prompt_ids()), 1, 1, 1]


@pytest.mark.parametrize("layer", [-1, 5])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(UsageError, match="layers 0 to 4"):
        stream(endless(), TOKENIZER, PROMPT, layer=layer)


def test_no_tokens_at_all() -> None:
    with pytest.raises(UsageError, match="max_new_tokens 0"):
        stream(endless(), TOKENIZER, PROMPT, layer=1, max_new_tokens=0)


def test_a_block_that_does_not_run_is_refused() -> None:
    model = tiny_llama(num_hidden_layers=2)
    steps = stream(model, TOKENIZER, PROMPT, layer=2)
    model.model.config.num_hidden_layers = 1  # the decoder runs as many blocks as this says
    with pytest.raises(ModelError, match="layer 2 ran 0 times"):
        next(steps)
