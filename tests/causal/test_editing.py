from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.causal import Ablation, Addition, Edit, Patch, SubspacePatch, answers, editing, states_at, token_ids
from interp.errors import ModelError, UsageError
from interp.models.adapter import Adapter, Batch
from interp.models.continuation import read
from interp.models.hooks import HooksAdapter
from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts.prompt import user_prompt
from tests.models.architectures import NAMES, batch_of, folder_of, model_of
from tests.models.test_hooks import adapter_of, everything, hooks_in
from tests.tiny import make_tokenizer, tiny_llama

TEXTS = ("How do I bake bread?", "Hi", "Explain how the lock of a door works, please.", "a letter")
PROMPTS = [user_prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]
OTHERS = {"transformer_lens": [n for n in NAMES if n not in ("persimmon", "falcon_alibi")], "nnsight": list(NAMES)}
GAP = 1e-5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real(batch: Any) -> list[tuple[int, ...]]:
    """The texts of a batch, without padding."""
    return [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch.ids, batch.mask, strict=True)]


def some_edits(width: int = 32, rows: int = 3) -> dict[str, Edit]:
    return {
        "ablation": Ablation(drawn(width)),
        "ablation at places": Ablation(drawn(width), layers=(1, 2), at=(-1, -3)),
        "addition": Addition(drawn(width), 1),
        "addition to the embedding": Addition(drawn(width), 0),
        "addition to the last": Addition(drawn(width), 3, at=(-2,)),
        "patch": Patch(drawn(rows, 2, width), 2, (-4, -1)),
        "subspace": SubspacePatch(drawn(rows, 1, width), drawn(2, width, seed=1), 1, (-2,)),
    }


EDITS = tuple(some_edits())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def open_with(backend: str, name: str, root: Path) -> Adapter:
    return load(ModelSource("local", folder_of(name, root)), Runtime(backend, "fp32", "cpu"))


@torch.no_grad()
def logits_of(adapter: Any, batch: Any) -> Tensor:
    return adapter.model(input_ids=batch.ids, attention_mask=batch.mask).logits[batch.mask.bool()]


# One full forward with a hook of its own is the path that all others are held against.
@torch.no_grad()
def by_hand(model: Any, layer: int, change: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    """Logits of unpadded ids when ``change`` is applied to the state of a layer."""
    blocks = model.model.layers

    def returned(_: nn.Module, __: Any, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    def given(_: nn.Module, args: Any) -> Any:
        return (change(args[0]), *args[1:])

    handle = blocks[layer - 1].register_forward_hook(returned) if layer else blocks[0].register_forward_pre_hook(given)
    try:
        return model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_an_addition_is_that_of_a_hook_by_hand(layer: int) -> None:
    model, vector, batch = model_of("llama"), drawn(32), batch_of("none")
    with editing(adapter_of(model), [Addition(vector, layer)]), torch.no_grad():
        found = model(input_ids=batch.ids).logits
    assert torch.equal(found, by_hand(model, layer, lambda x: x + vector, batch.ids))


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_places_and_rows_are_the_prompt_s_whatever_the_padding_and_order(padding: str) -> None:
    model, batch, values = model_of("llama"), batch_of(padding), drawn(3, 2, 32)
    adapter, texts, at = adapter_of(model), real(batch), (-1, -4)

    def one(row: int) -> Tensor:
        def change(x: Tensor) -> Tensor:
            x = x.clone()
            x[0, list(at)] = values[row]
            return x

        return by_hand(model, 2, change, torch.tensor([texts[row]]))[0]

    expected = torch.cat([one(row) for row in range(3)])
    with editing(adapter, [Patch(values, 2, at)], texts):
        assert (logits_of(adapter, batch) - expected).abs().max() < GAP
        turned = replace(batch, ids=batch.ids.flip(0), mask=batch.mask.flip(0))
        found = logits_of(adapter, turned).split([len(text) for text in texts[::-1]])
        assert (torch.cat(found[::-1]) - expected).abs().max() < GAP


@pytest.mark.parametrize("backend", list(OTHERS))
@pytest.mark.parametrize("name", ["llama", "gpt2", "lfm2", "opt", "opt_projected", "bloom", "gptj"])
def test_backends_agree(name: str, backend: str, root: Path) -> None:
    hooks, other = open_with("hooks", name, root), open_with(backend, name, root)
    layers = everything(hooks)
    for padding in ("right", "left"):
        batch = batch_of(padding)
        for edit in some_edits().values():
            with editing(hooks, [edit], real(batch)):
                states, logits = hooks.states(batch, layers), logits_of(hooks, batch)
            with editing(other, [edit], real(batch)):
                assert (other.states(batch, layers) - states).abs().max() < GAP
                assert (logits_of(other, batch) - logits).abs().max() < GAP
    assert torch.equal(hooks.states(batch, layers), hooks.states(batch, layers))
    assert (other.states(batch, layers) - hooks.states(batch, layers)).abs().max() < GAP


def test_as_transformer_lens_writes(root: Path) -> None:
    adapter, batch, vector = open_with("transformer_lens", "llama", root), batch_of("none"), drawn(32)
    with editing(adapter, [Addition(vector, 0), Addition(2 * vector, 2)]):
        found = logits_of(adapter, batch)
    hooks = [("blocks.0.hook_in", lambda x, hook: x + vector), ("blocks.1.hook_out", lambda x, hook: x + 2 * vector)]
    with torch.no_grad():
        expected = adapter.bridge.run_with_hooks(batch.ids, fwd_hooks=hooks)  # type: ignore[attr-defined]
    assert (found - expected.flatten(0, 1)).abs().max() < GAP
    assert (found - logits_of(adapter, batch)).abs().max() > 0.01


def test_as_nnsight_writes(root: Path) -> None:
    adapter, batch, vector = open_with("nnsight", "llama", root), batch_of("none"), drawn(32)
    with editing(adapter, [Addition(vector, 2)]):
        found = logits_of(adapter, batch)
    traced = adapter.traced  # type: ignore[attr-defined]
    with torch.no_grad(), traced.trace({"input_ids": batch.ids, "attention_mask": batch.mask}):
        block = traced.model.layers[1]
        block.output = block.output + vector
        expected = traced.lm_head.output.save()
    assert (found - expected.flatten(0, 1)).abs().max() < GAP


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mpt"])
def test_what_is_ablated_is_gone_from_every_state(name: str) -> None:
    adapter, batch, direction = adapter_of(model_of(name)), batch_of("right"), drawn(32)
    unit = direction / direction.norm()
    before = adapter.states(batch, everything(adapter))
    with editing(adapter, [Ablation(5 * direction)]):
        after = adapter.states(batch, everything(adapter))
    assert (before @ unit).abs().max() > 0.1
    assert (after @ unit).abs().max() < 1e-5
    assert (before[:, 0] - after[:, 0] - (before[:, 0] @ unit)[..., None] * unit).abs().max() < 1e-6


def test_an_ablation_at_one_layer_leaves_the_others() -> None:
    adapter, batch, direction = adapter_of(model_of("llama")), batch_of("right"), drawn(32)
    before = adapter.states(batch, [0, 1, 2, 3])
    with editing(adapter, [Ablation(direction, layers=(2,))]):
        after = adapter.states(batch, [0, 1, 2, 3])
    assert torch.equal(before[:, :2], after[:, :2])
    assert (after[:, 2] @ direction).abs().max() < 1e-4 < (after[:, 3] @ direction).abs().max()


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1, 2, 3)])
def test_all_states_of_the_twin_are_the_twin(layers: tuple[int, ...]) -> None:
    adapter = adapter_of(model_of("llama"))
    mine, twin = drawn(2, 7).argsort(), drawn(2, 7, seed=1).argsort() + 20
    batch = replace(batch_of("none"), ids=twin, mask=torch.ones_like(twin), at=torch.arange(7).expand(2, 7))
    states, expected = adapter.states(batch, layers), logits_of(adapter, batch)
    at = tuple(range(-7, 0))
    edits = [Patch(states[:, k], layer, at) for k, layer in enumerate(layers)]
    batch = replace(batch, ids=mine)
    with editing(adapter, edits, mine.tolist()):
        assert torch.equal(logits_of(adapter, batch), expected)
    assert not torch.equal(logits_of(adapter, batch), expected)


def test_a_subspace_and_its_complement_are_the_whole() -> None:
    states, values, rows = drawn(3, 2, 32), drawn(3, 2, 32, seed=1), torch.tensor([2, 0, 1])
    basis, at = drawn(4, 32, seed=2), (-1, -2)
    inside, outside = (SubspacePatch(values, basis, 1, at, complement) for complement in (False, True))
    whole = Patch(values, 1, at).applied(states, rows)
    both = outside.applied(inside.applied(states, rows), rows)
    assert torch.equal(whole, values[rows])
    assert (both - whole).abs().max() < GAP
    # What stays is what the edit does not touch, and it reaches what it should.
    assert ((outside.applied(states, rows) - states) @ basis.T).abs().max() < 1e-4
    assert ((inside.applied(states, rows) - values[rows]) @ basis.T).abs().max() < 1e-4
    scaled = replace(inside, basis=torch.tensor([[2.0, 1, 0, 0], [0, 3, 0, 0], [0, 0, 1, 5], [1, 0, 0, 1]]) @ basis)
    assert (scaled.applied(states, rows) - inside.applied(states, rows)).abs().max() < 1e-4


def test_no_edit_changes_nothing_to_the_bit() -> None:
    adapter, batch = adapter_of(model_of("llama")), batch_of("left")
    states, logits = adapter.states(batch, [0, 1, 2, 3]), logits_of(adapter, batch)
    for edits in ((), (Addition(torch.zeros(32), 2),)):
        with editing(adapter, edits):
            assert torch.equal(adapter.states(batch, [0, 1, 2, 3]), states)
            assert torch.equal(logits_of(adapter, batch), logits)


def test_edits_of_one_layer_act_in_order() -> None:
    adapter, batch, vector = adapter_of(model_of("llama")), batch_of("none"), drawn(32)
    ablation, addition = Ablation(vector, layers=(1,)), Addition(vector, 1)
    with editing(adapter, [ablation, addition]):
        kept = adapter.states(batch, [1]) @ vector / (vector @ vector)
    with editing(adapter, [addition, ablation]):
        gone = adapter.states(batch, [1]) @ vector
    assert (kept - 1).abs().max() < GAP
    assert gone.abs().max() < 1e-4


@pytest.mark.parametrize("edit", EDITS)
def test_no_hook_survives_an_exception(edit: str) -> None:
    adapter, batch = adapter_of(model_of("llama")), batch_of("none")
    expected = adapter.states(batch, [3])
    with pytest.raises(RuntimeError, match="mine"), editing(adapter, [some_edits()[edit]], real(batch)):
        assert hooks_in(adapter.model) > 0
        raise RuntimeError("mine")
    assert hooks_in(adapter.model) == 0
    assert adapter.shares
    assert torch.equal(adapter.states(batch, [3]), expected)


@pytest.mark.parametrize("edit", EDITS)
def test_shared_tokens_are_edited_too_and_nothing_edited_is_kept(edit: str) -> None:
    adapter, plain = adapter_of(model_of("llama")), adapter_of(model_of("llama"))
    batch = replace(batch_of("none", same=6), at=torch.tensor([[6, 7, 8]] * 3))
    shared, layers, texts = replace(batch, shared=6), [0, 1, 2, 3], real(batch)
    before = adapter.states(shared, layers)  # now the adapter keeps unedited keys and values
    for _ in range(2):
        with editing(adapter, [some_edits()[edit]], texts):
            found = adapter.states(shared, layers)
        with editing(plain, [some_edits()[edit]], texts):
            assert (plain.states(batch, layers) - found).abs().max() < GAP
        assert (found - before).abs().max() > 0.01
        assert torch.equal(adapter.states(shared, layers), before)
    fresh = adapter_of(model_of("llama"))
    with editing(fresh, [some_edits()[edit]], texts):
        fresh.states(shared, layers)
    assert torch.equal(fresh.states(shared, layers), before)


@torch.no_grad()
def greedy(model: Any, ids: list[int], layer: int, change: Callable[[Tensor], Tensor], tokens: int) -> list[int]:
    """Greedy decoding that reads the whole text anew for every token."""
    said: list[int] = []
    for _ in range(tokens):
        logits = by_hand(model, layer, change, torch.tensor([ids + said]))
        said.append(int(logits[0, -1].argmax()))
    return said


def generated(model: Any, ids: list[int], tokens: int) -> list[int]:
    whole = model.generate(
        input_ids=torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return whole[0, len(ids) :].tolist()


@pytest.mark.parametrize("at", [None, (-1,), (-1, -3)])
def test_generation_with_kept_keys_and_values_is_an_uncached_loop(at: tuple[int, ...] | None) -> None:
    model = tiny_llama(3)
    adapter, vector, ids = adapter_of(model), 3 * drawn(32), [5, 17, 33, 250, 8]

    def change(x: Tensor) -> Tensor:
        if at is None:
            return x + vector
        x = x.clone()
        x[:, [5 + place for place in at]] += vector
        return x

    expected = greedy(model, ids, 2, change, 8)
    with editing(adapter, [Addition(vector, 2, at=at)], [ids]):
        assert generated(model, ids, 8) == expected
    assert generated(model, ids, 8) != expected


@pytest.mark.parametrize("backend", list(OTHERS))
def test_answers_are_those_of_every_backend(backend: str, root: Path) -> None:
    hooks, other = open_with("hooks", "llama", root), open_with(backend, "llama", root)
    values = states_at(hooks, PROMPTS, [2], [-2, -1])[:, 0].flip(0)
    for edit in (Addition(2 * drawn(32), 1), Ablation(drawn(32)), Patch(values, 2, (-2, -1))):
        assert answers(hooks, PROMPTS, [edit], tokens=5) == answers(other, PROMPTS, [edit], tokens=5)
    assert answers(hooks, PROMPTS, [Addition(2 * drawn(32), 1)], tokens=5) != answers(hooks, PROMPTS, tokens=5)


def test_rows_of_a_patch_follow_the_prompts_not_the_batches() -> None:
    """Prompts are answered sorted by length, two at a time; each must get its own values."""
    adapter = HooksAdapter.of_module(tiny_llama(2), make_tokenizer())
    values = 4 * drawn(len(PROMPTS), 1, 32)
    alone = [
        answers(adapter, [prompt], [Patch(values[i : i + 1], 2, (-1,))], tokens=4)[0]
        for i, prompt in enumerate(PROMPTS)
    ]
    assert answers(adapter, PROMPTS, [Patch(values, 2, (-1,))], tokens=4, batch_size=2) == alone
    assert answers(adapter, PROMPTS, [Patch(values.flip(0), 2, (-1,))], tokens=4, batch_size=2) != alone


@pytest.mark.parametrize("name", ["llama", "lfm2", "qwen3_5_text"])
def test_places_stay_at_the_prompt_as_texts_grow(name: str) -> None:
    """Models with a recurrent state read texts anew as they grow; the prompt then ends before the text does."""
    model = model_of(name)
    texts, values = [[5, 17, 33, 250], [7, 8, 9, 10, 11, 12]], 3 * drawn(2, 1, 32)
    with editing(adapter_of(model), [Patch(values, 1, (-1,))], texts):
        grown = read(model, texts).grown([1, 0, 1], [40, 41, 42]).grown([2, 1], [43, 44]).next_log_probs
    for found, text, row in ((grown[0], [*texts[1], 42, 43], 1), (grown[1], [*texts[0], 41, 44], 0)):

        def change(x: Tensor, row: int = row) -> Tensor:
            x = x.clone()
            x[:, len(texts[row]) - 1] = values[row, 0]
            return x

        expected = by_hand(model, 1, change, torch.tensor([text]))[0, -1].log_softmax(-1)
        assert (found - expected).abs().max() < GAP


def test_16_bit_states_stay_16_bit() -> None:
    adapter, batch = adapter_of(tiny_llama().bfloat16()), batch_of("right")
    for edit in some_edits().values():
        with editing(adapter, [edit], real(batch)):
            assert adapter.states(batch, [1, 2, 4]).dtype == torch.bfloat16


@pytest.fixture
def adapter() -> Iterator[HooksAdapter]:
    adapter = adapter_of(model_of("llama"))
    yield adapter
    assert hooks_in(adapter.model) == 0


def test_edits_that_do_not_act_are_refused(adapter: HooksAdapter) -> None:
    batch = batch_of("none")
    with (
        pytest.raises(ModelError, match=r"no forward reached layers \[3\]"),
        editing(adapter, [Addition(drawn(32), 3)]),
    ):
        adapter.states(batch, [0, 1])
    with pytest.raises(ModelError, match="nothing was edited"), editing(adapter, [Ablation(drawn(32))]):
        pass
    with editing(adapter, [Ablation(drawn(32))]):
        adapter.states(batch, [0, 1])


def test_a_layer_that_is_passed_over_is_refused() -> None:
    adapter = adapter_of(model_of("llama"))
    adapter.sites[2] = replace(adapter.sites[2], module=nn.Identity())
    ablation = Ablation(drawn(32), layers=(1, 2, 3))
    with pytest.raises(ModelError, match="did not run though a higher one did"), editing(adapter, [ablation]):
        logits_of(adapter, batch_of("none"))


def test_a_text_of_no_prompt_is_refused(adapter: HooksAdapter) -> None:
    batch, ablation = batch_of("none"), Ablation(drawn(32), at=(-1,))
    known = editing(adapter, [ablation], real(batch)[:2])
    with pytest.raises(ModelError, match="begins with none of the 2 prompts"), known:
        logits_of(adapter, batch)


@pytest.mark.parametrize(
    ("edit", "texts", "says"),
    [
        (Addition(drawn(32), 4), [], r"layers \[4\] do not exist"),
        (Ablation(drawn(32), layers=(-1,)), [], r"layers \[-1\] do not exist"),
        (Ablation(drawn(31)), [], "width 31"),
        (Ablation(drawn(32), at=(-1,)), [], "give `editing` the prompts"),
        (Ablation(drawn(32), at=(-3,)), [[1, 2, 3], [4, 5]], "prompt 1 has only 2 tokens"),
        (Ablation(drawn(32), at=(-1,)), [[1, 2], [1, 2, 3]], "begins with all of another"),
        (Patch(drawn(3, 1, 32), 1, (-1,)), [[1], [2]], "3 rows of values for 2 prompts"),
        (Patch(drawn(2, 1, 32), 1, (-1,)), [[1], [1]], "stands there twice"),
    ],
)
def test_edits_that_do_not_fit_are_refused(adapter: HooksAdapter, edit: Edit, texts: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says), editing(adapter, [edit], texts):
        pass


def test_edits_that_mean_nothing_are_refused() -> None:
    for make, says in (
        (lambda: Ablation(torch.zeros(4)), "length 0"),
        (lambda: Ablation(torch.full((4,), torch.nan)), "NaN"),
        (lambda: Addition(torch.full((4,), torch.inf), 0), "infinity"),
        (lambda: Ablation(torch.ones(4), at=(0,)), "all negative"),
        (lambda: Addition(torch.ones(4), 0, at=()), "all negative"),
        (lambda: Addition(torch.ones(4), 0, at=(-1, -1)), "each once"),
        (lambda: Patch(torch.ones(2, 1, 4), 0, (-1, -2)), "one per place"),
        (lambda: SubspacePatch(torch.ones(2, 1, 4), torch.ones(2, 4), 0, (-1,)), "2 vectors of rank 1"),
    ):
        with pytest.raises(UsageError, match=says):
            make()


def test_texts_are_the_prompts_as_harvested() -> None:
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    states = states_at(adapter, PROMPTS, [0, 2], [-1, -3], batch_size=3)
    for row, ids in enumerate(token_ids(adapter, PROMPTS)):
        alone = torch.tensor([ids])
        at = torch.tensor([[len(ids) - 1, len(ids) - 3]])
        alone = adapter.states(Batch(alone, torch.ones_like(alone), at), [0, 2])
        assert (alone[0] - states[row]).abs().max() < GAP
