import numpy as np
import pytest
import torch

from analyses.locators.tga_paper import tga_paper
from analyses.locators.tga_released import tga_released
from interp.errors import UsageError
from interp.lens import Readout, logit_lens

VOCAB, LAYERS = 20, 9
SORRY, CAPITAL_I = 7, 11


def reading_of(log_p):
    """The lens on states whose log-probabilities are given: an identity readout does it."""
    readout = Readout(norm=torch.nn.Identity(), weight=torch.eye(VOCAB))
    return logit_lens(log_p, readout, tokens=torch.tensor([SORRY]), k=5)


def planted(layer, token, prompts=6):
    """Logits in which one token sinks a little at every layer and jumps at one; the others stay where they are."""
    logits = torch.randn(prompts, 1, VOCAB, generator=torch.Generator().manual_seed(0)).repeat(1, LAYERS, 1)
    logits[..., token] = -0.1 * torch.arange(LAYERS)
    logits[:, layer:, token] += 6.0
    return reading_of(logits)


@pytest.mark.parametrize("layer", [2, 5, 8])
def test_both_rules_find_a_planted_sorry(layer):
    layers = tuple(range(LAYERS))
    assert (tga_paper(planted(layer, SORRY), layers, (SORRY,)).onset == layer).all()
    released = tga_released(planted(layer, SORRY), layers, (SORRY,))
    assert (released.fires[:, layer - 2]).all() and (released.onset <= layer).all()


def test_a_jump_before_layer_two_is_outside_the_rules():
    firing = tga_paper(planted(1, SORRY), tuple(range(LAYERS)), (SORRY,))
    assert firing.layers == tuple(range(2, LAYERS))
    assert not firing.fires[:, 0].all()


def test_the_released_rule_also_watches_a_capital_i():
    reading = planted(4, CAPITAL_I)
    layers = tuple(range(LAYERS))
    assert tga_released(reading, layers, (SORRY, CAPITAL_I)).fires[:, 2].all()
    assert not tga_paper(reading, layers, (SORRY,)).fires[:, 2].any()


def test_never_is_censored_and_not_minus_one():
    firing = tga_paper(planted(4, CAPITAL_I), tuple(range(LAYERS)), ())
    assert np.isinf(firing.onset).all()
    assert not firing.fired_by.any()


def test_once_fired_a_rule_stays_fired():
    firing = tga_paper(planted(3, SORRY), tuple(range(LAYERS)), (SORRY,))
    assert (np.diff(firing.fired_by.astype(int), axis=1) >= 0).all()


def test_rules_that_compare_neighbours_refuse_gaps():
    with pytest.raises(UsageError, match="gaps"):
        tga_paper(planted(3, SORRY), (0, 2, 4, 6, 8, 10, 12, 14, 16), (SORRY,))


def test_released_needs_five_gains():
    readout = Readout(norm=torch.nn.Identity(), weight=torch.eye(VOCAB))
    reading = logit_lens(torch.zeros(1, LAYERS, VOCAB), readout, tokens=torch.tensor([SORRY]), k=2)
    with pytest.raises(UsageError, match="5 largest"):
        tga_released(reading, tuple(range(LAYERS)), (SORRY,))
