import pytest
import torch
from torch import Tensor, nn

from interp.lens.readout import Readout

D_MODEL, VOCAB = 6, 11


def make(**changes: object) -> Readout:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCAB, D_MODEL, generator=generator)
    return Readout(**{"norm": nn.Identity(), "weight": weight, **changes})  # type: ignore[arg-type]


@pytest.fixture
def states() -> Tensor:
    return torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(1))


def test_it_is_norm_head_bias_scale_and_softcap_in_this_order(states: Tensor) -> None:
    norm, bias = nn.LayerNorm(D_MODEL), torch.linspace(-1, 1, VOCAB)
    readout = make(norm=norm, bias=bias, scale=3.0, softcap=2.0)
    expected = 2 * torch.tanh((norm(states) @ readout.weight.T + bias) * 3 / 2)
    assert torch.allclose(readout.logits(readout.normed(states)), expected)
    assert readout.vocab == VOCAB


@pytest.mark.parametrize("width", [1, 4, VOCAB, 100])
def test_pieces_of_the_vocabulary_make_the_whole(states: Tensor, width: int) -> None:
    readout = make(bias=torch.linspace(-1, 1, VOCAB), scale=0.5, softcap=1.5)
    whole = readout.logits(states)
    pieces = [readout.logits(states, a, a + width) for a in range(0, VOCAB, width)]
    assert whole.shape == (2, 3, VOCAB)
    assert torch.allclose(torch.cat(pieces, dim=-1), whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3, 4)])
def test_any_number_of_states(shape: tuple[int, ...]) -> None:
    readout = make()
    assert readout.logits(readout.normed(torch.ones(*shape, D_MODEL))).shape == (*shape, VOCAB)


def test_it_computes_in_float32_from_16_bit_weights_and_states(states: Tensor) -> None:
    readout = make(weight=make().weight.bfloat16(), bias=torch.ones(VOCAB, dtype=torch.bfloat16))
    normed = readout.normed(states.bfloat16())
    logits = readout.logits(normed)
    assert normed.dtype == logits.dtype == torch.float32
    expected = states.bfloat16().double() @ readout.weight.double().T + 1
    assert (logits.double() - expected).abs().max() < 1e-5


def test_a_projection_behind_the_norm(states: Tensor) -> None:
    narrow = nn.Sequential(nn.LayerNorm(D_MODEL), nn.Linear(D_MODEL, 4, bias=False))
    readout = make(norm=narrow, weight=torch.ones(VOCAB, 4))
    normed = readout.normed(states)
    assert normed.shape == (2, 3, 4)
    assert torch.allclose(readout.logits(normed), normed.sum(-1, keepdim=True).expand(2, 3, VOCAB), atol=1e-6)


def test_it_keeps_no_gradient(states: Tensor) -> None:
    readout = make(norm=nn.LayerNorm(D_MODEL))
    assert not readout.logits(readout.normed(states.requires_grad_())).requires_grad


def test_softcap_bounds_the_logits() -> None:
    readout = make(softcap=2.0)
    assert readout.logits(torch.full((D_MODEL,), 1e4)).abs().max() <= 2.0
