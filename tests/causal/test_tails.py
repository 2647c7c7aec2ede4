import pytest
import torch

from interp.causal import Ablation, Addition, Patch, Tails, editing, states_at, token_ids
from interp.errors import UsageError
from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from tests.causal.test_editing import PROMPTS, drawn
from tests.models.architectures import folder_of


def whole(adapter, edits):
    with editing(adapter, edits, token_ids(adapter, PROMPTS)):
        return states_at(adapter, PROMPTS, [adapter.n_layers], (-1,))[:, 0, 0]


def some_edits(adapter, rows):
    d, top = adapter.d_model, adapter.n_layers
    return [
        (),
        (Patch(drawn(rows, 1, d), 1, (-1,)),),
        (Patch(drawn(rows, 2, d), 2, (-3, -1)), Addition(drawn(d, seed=1), top, (-1,))),
        (Ablation(drawn(d), at=(-2, -1)),),
    ]


# Windows, learned positions, ALiBi twice, experts with sinks, and a recurrent state.
SOME = ("llama", "gemma2", "gpt2", "falcon_alibi", "bloom", "gpt_oss", "lfm2")
# It can not be taken up in the middle, so prompts are read whole.
RECURRENT = ("lfm2",)


@pytest.mark.parametrize(
    ("backend", "name"), [*(("hooks", n) for n in SOME), ("transformer_lens", "llama"), ("nnsight", "gemma2")]
)
def test_a_tail_gives_what_whole_prompts_give(backend, name, tmp_path):
    adapter = load(ModelSource("local", folder_of(name, tmp_path)), Runtime(backend, "fp32", "cpu"))
    tails = Tails.of(adapter, PROMPTS, 3)
    assert (tails.kept is None) == (name in RECURRENT)
    for _ in range(2):  # what is kept is not used up
        for edits in some_edits(adapter, len(PROMPTS)):
            torch.testing.assert_close(tails.last(edits), whole(adapter, edits), rtol=1e-4, atol=1e-4)
    layers = [0, 1, adapter.n_layers]
    with editing(adapter, edits, token_ids(adapter, PROMPTS)):
        expected = states_at(adapter, PROMPTS, layers, (-1,))[:, :, 0]
    torch.testing.assert_close(tails.states(layers, edits), expected, rtol=1e-4, atol=1e-4)


def test_edits_before_the_tail_are_refused(tiny_adapter):
    tails = Tails.of(tiny_adapter, PROMPTS, 2)
    for edit in (Addition(drawn(32), 1), Patch(drawn(len(PROMPTS), 1, 32), 1, (-3,))):
        with pytest.raises(UsageError, match="last 2 tokens"):
            tails.last((edit,))
