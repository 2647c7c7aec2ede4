import sys

import pytest
import torch

from interp.lens import Readout, logit_lens, token_log_probs
from interp.models.adapter import Batch

PROMPTS, LAYERS, D_MODEL, VOCAB = 7, 5, 16, 103
TOKENS = torch.tensor([0, 3, 50, 102])


def random_readout(**options):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(VOCAB, D_MODEL, generator=generator)
    return Readout(norm=torch.nn.LayerNorm(D_MODEL, elementwise_affine=False), weight=weight, **options)


@pytest.fixture
def states():
    return torch.randn(PROMPTS, LAYERS, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3


def dense(states, readout):
    """log-probabilities of everything at once, in float64."""
    logits = readout.normed(states).double() @ readout.weight.double().T
    if readout.bias is not None:
        logits = logits + readout.bias.double()
    logits = logits * readout.scale
    if readout.softcap is not None:
        logits = readout.softcap * torch.tanh(logits / readout.softcap)
    return logits.log_softmax(-1)


OPTIONS = [{}, {"softcap": 5.0}, {"scale": 0.25}, {"bias": torch.linspace(-2, 2, VOCAB)}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "softcap", "scale", "bias"])
@pytest.mark.parametrize("chunk", [1, 10, 103, 8192])
def test_streaming_equals_a_dense_computation(states, options, chunk):
    readout = random_readout(**options)
    truth = dense(states, readout)
    reading = logit_lens(states, readout, tokens=TOKENS, k=4, chunk=chunk)

    torch.testing.assert_close(reading.log_prob.double(), truth[..., TOKENS], atol=1e-4, rtol=0)
    p = truth.exp()
    torch.testing.assert_close(reading.entropy.double(), -(p * truth).sum(-1), atol=1e-4, rtol=0)
    kl = (p[:, -1:] * (truth[:, -1:] - truth)).sum(-1)
    torch.testing.assert_close(reading.kl_to_final.double(), kl, atol=1e-4, rtol=0)
    ranks = (truth[..., None, :] > truth[..., TOKENS, None]).sum(-1)
    assert torch.equal(reading.rank, ranks)
    assert torch.equal(reading.top, truth.topk(4).indices)
    assert torch.equal(reading.rise[:, 1:], (truth[:, 1:] - truth[:, :-1]).topk(4).indices)
    assert torch.equal(reading.gain[:, 1:], (p[:, 1:] - p[:, :-1]).topk(4).indices)
    assert (reading.rise[:, 0] == -1).all() and (reading.gain[:, 0] == -1).all()


def test_chunk_and_block_do_not_change_the_result(states, monkeypatch):
    readout = random_readout()
    whole = logit_lens(states, readout, tokens=TOKENS)
    # The package exports a function of the module's own name, so the module is found by its import path.
    monkeypatch.setattr(sys.modules["interp.lens.logit_lens"], "BLOCK", 1)
    calls = []
    single = logit_lens(states, readout, tokens=TOKENS, chunk=7, progress=lambda *done: calls.append(done))
    torch.testing.assert_close(single.log_prob, whole.log_prob)
    assert torch.equal(single.top, whole.top)
    assert calls[-1] == (PROMPTS, PROMPTS)


def test_token_log_probs_agree_with_the_full_reading(states):
    readout = random_readout(softcap=3.0)
    few = token_log_probs(states, readout, tokens=TOKENS, chunk=13)
    torch.testing.assert_close(few, logit_lens(states, readout, tokens=TOKENS).log_prob)


def test_the_final_layer_diverges_from_itself_by_nothing(states):
    reading = logit_lens(states, random_readout(), tokens=TOKENS)
    assert reading.kl_to_final[:, -1].max() < 1e-6
    assert (reading.kl_to_final >= 0).all()
    assert (reading.entropy <= torch.tensor(float(VOCAB)).log() + 1e-5).all()


def test_the_last_layers_lens_is_the_models_own_output(tiny_adapter):
    ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    at = torch.tensor([[8], [8], [8]])
    states = tiny_adapter.states(Batch(ids, torch.ones_like(ids), at), range(5))[:, :, 0]
    logits = tiny_adapter.model(ids).logits[:, -1]
    readout = tiny_adapter.readout()
    torch.testing.assert_close(readout.logits(readout.normed(states[:, -1])), logits, atol=1e-4, rtol=0)
    every = torch.arange(readout.vocab)
    reading = logit_lens(states, readout, tokens=every)
    torch.testing.assert_close(reading.log_prob[:, -1], logits.log_softmax(-1), atol=1e-4, rtol=0)
    assert torch.equal(reading.top[:, -1, 0], logits.argmax(-1))
