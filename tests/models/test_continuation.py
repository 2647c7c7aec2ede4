import pytest
import torch

from interp.errors import ModelError
from interp.models.continuation import read
from tests.models.architectures import NAMES, model_of
from tests.tiny import tiny_llama

TEXTS = ((5, 9, 77, 30, 8, 41, 12, 6, 3), (17,), (44, 45, 46, 47, 48))
# Which text grows by which token, first at once and then again: the same text branches twice, one is left out.
STEPS = (([2, 0, 2], [7, 8, 9]), ([1, 0, 0, 2], [50, 51, 52, 53]), ([3, 2], [60, 61]))


@torch.no_grad()
def alone(name, text):
    """Log-probabilities of the next token by one plain forward pass of one text."""
    return model_of(name)(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("name", NAMES)
def test_texts_grow_as_if_each_were_read_alone(name):
    texts, grown = list(TEXTS), read(model_of(name), TEXTS)
    first = grown
    for rows, tokens in STEPS:
        for row, text in enumerate(texts):
            torch.testing.assert_close(grown.next_log_probs[row], alone(name, text), atol=1e-5, rtol=1e-4)
        grown = grown.grown(rows, tokens)
        texts = [(*texts[row], token) for row, token in zip(rows, tokens, strict=True)]
    again = first.grown([0], [4]).next_log_probs[0]
    torch.testing.assert_close(again, alone(name, (*TEXTS[0], 4)), atol=1e-5, rtol=1e-4)
    assert first.next_log_probs.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_what_is_foretold_is_as_likely_as_if_it_were_read_token_by_token(name):
    texts = read(model_of(name), TEXTS)
    for known, whole in ((texts, TEXTS), (texts.grown([2, 0], [7, 8]), ((*TEXTS[2], 7), (*TEXTS[0], 8)))):
        rows, sequences = [1, 0, 1], [(50, 51, 52, 53), (9, 9), (60, 61, 62)]
        for row, sequence, told in zip(rows, sequences, known.foretold(rows, sequences), strict=True):
            expected = [alone(name, (*whole[row], *sequence[:i]))[sequence[i]] for i in range(1, len(sequence))]
            torch.testing.assert_close(told, torch.stack(expected), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known.next_log_probs[0], alone(name, whole[0]), atol=1e-5, rtol=1e-4)


def test_logits_that_are_no_numbers_are_refused():
    model = tiny_llama()
    texts = read(model, TEXTS)
    model.lm_head.weight.data[7] = torch.nan
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: .*NaN"):
        texts.grown([0], [5])
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: .*NaN"):
        texts.foretold([0], [(5, 6)])
    with pytest.raises(ModelError, match="fp32"):
        read(model, TEXTS)
