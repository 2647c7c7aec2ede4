import pytest
import torch

from interp.lens import Readout, vocabulary_cosine

D_MODEL, VOCAB = 16, 103
TOKENS = torch.tensor([0, 3, 50, 102])
OPTIONS = [{}, {"softcap": 5.0}, {"scale": 0.25}, {"bias": torch.linspace(-2, 2, VOCAB), "scale": 3.0}]


def readout_of(**options):
    weight = torch.randn(VOCAB, D_MODEL, generator=torch.Generator().manual_seed(1))
    return Readout(norm=torch.nn.LayerNorm(D_MODEL, elementwise_affine=False), weight=weight, **options)


def states_of(prompts):
    return torch.randn(prompts, 5, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3


def dense(states, readout):
    logits = readout.logits(readout.normed(states))
    words = torch.zeros(VOCAB)
    words[TOKENS] = 1
    return torch.nn.functional.cosine_similarity(logits.double(), words.double(), dim=-1).float()


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "softcap", "scale", "bias"])
@pytest.mark.parametrize("prompts", [2, 30], ids=["few", "many"])
@pytest.mark.parametrize("chunk", [1, 10, 8192])
def test_it_is_the_cosine_of_the_dense_logits(options, prompts, chunk):
    states, readout = states_of(prompts), readout_of(**options)
    found = vocabulary_cosine(states, readout, tokens=TOKENS, chunk=chunk)
    torch.testing.assert_close(found, dense(states, readout), atol=1e-5, rtol=0)


def test_no_array_of_states_by_vocabulary_is_made(monkeypatch):
    asked = []
    logits = Readout.logits
    monkeypatch.setattr(Readout, "logits", lambda self, h, *at: asked.append(len(self.weight)) or logits(self, h, *at))
    vocabulary_cosine(states_of(30), readout_of(), tokens=TOKENS)
    assert asked == [len(TOKENS)]


def test_logits_of_zero_have_cosine_zero():
    readout = Readout(norm=torch.nn.Identity(), weight=torch.eye(4))
    assert not vocabulary_cosine(torch.zeros(9, 2, 4), readout, tokens=torch.tensor([1])).any()
    one = torch.zeros(9, 2, 4)
    one[..., 1] = 7
    assert (vocabulary_cosine(one, readout, tokens=torch.tensor([1])) == 1).all()


def test_a_common_part_of_all_logits_is_not_lost_to_rounding():
    weight = torch.randn(500, D_MODEL, generator=torch.Generator().manual_seed(1)) * 1e-3
    weight[:, 0] += 10
    readout = Readout(norm=torch.nn.Identity(), weight=weight)
    states = states_of(30)
    states[..., 0] = 0
    found = vocabulary_cosine(states, readout, tokens=TOKENS)
    logits = states.double() @ weight.double().T
    expected = logits[..., TOKENS].sum(-1) / (logits.norm(dim=-1) * 2)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
