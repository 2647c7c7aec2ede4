"""Locators that watch words, and the probe that does not: the same planted truths as curves."""

import numpy as np
import pytest
import torch

from analyses.locators.contrast import Contrast
from analyses.locators.fdv import WORDS, fdv
from analyses.locators.firing import Firing
from analyses.locators.probe_onset import probe_onset
from interp.errors import UsageError
from interp.lens import Readout
from interp.metrics import auroc
from interp.stats import bootstrap_censored_median
from tests.analyses.planted_states import LAYERS, WIDTH, contrast, planted, twins
from tests.probes.planted import LAYERS as PROBE_LAYERS
from tests.probes.planted import PLANTED

VOCAB = 90
IDS = (3, 17, 60)


def readout_of(norm=None):
    weight = torch.randn(VOCAB, WIDTH, generator=torch.Generator().manual_seed(1))
    weight[list(IDS), 3] += 4
    return Readout(norm=norm or torch.nn.RMSNorm(WIDTH), weight=weight)


def naive(states, readout, norms_of_last=1):
    words = torch.zeros(VOCAB)
    words[list(IDS)] = 1
    out = torch.empty(states.shape[:2])
    for i in range(states.shape[1]):
        normed = states[:, i]
        for _ in range(norms_of_last if i == states.shape[1] - 1 else 1):
            normed = readout.norm(normed)
        out[:, i] = torch.nn.functional.cosine_similarity(normed @ readout.weight.T, words[None], dim=-1)
    return out.detach().double().numpy()


@pytest.mark.parametrize("twice", [False, True])
def test_fdv_is_the_difference_of_dense_cosines(twice):
    norm = torch.nn.RMSNorm(WIDTH)
    torch.nn.init.uniform_(norm.weight, 0.2, 3.0, generator=torch.Generator().manual_seed(0))
    states, readout = planted(4), readout_of(norm)
    f = naive(states, readout, 2 if twice else 1)
    found = fdv(states, LAYERS, contrast(), readout, IDS, double_norm=twice)
    assert np.allclose(found.values, f[::2].mean(0) - f[1::2].mean(0), atol=1e-5)
    assert np.allclose(found.kinds[1].value, f[1::2].mean(0), atol=1e-5)
    assert found.above_last == tuple(i for i in LAYERS if found.values[i] > found.values[-1])


def test_the_second_norm_moves_the_last_layer_only_and_with_it_the_chosen_set():
    norm = torch.nn.RMSNorm(WIDTH)
    with torch.no_grad():
        norm.weight.fill_(1.0)[3] = 3.0
    once, twice = (fdv(planted(4), LAYERS, contrast(), readout_of(norm), IDS, double_norm=t) for t in (False, True))
    assert np.array_equal(once.values[:-1], twice.values[:-1]) and once.values[-1] != twice.values[-1]
    assert set(once.above_last) != set(twice.above_last)
    assert (once.locator, twice.locator) == ("fdv", "fdv_double_norm")


def test_a_planted_word_is_found_at_its_layer_and_noise_nowhere():
    found = fdv(planted(6), LAYERS, contrast(), readout_of(), IDS)
    assert (found.onset().value, found.onset().lo, found.onset().hi) == (6, 6, 6)
    assert found.height.lo > 0
    nulls = [fdv(planted(seed=s), LAYERS, contrast(seed=s), readout_of(), IDS).height.lo > 0 for s in range(10)]
    assert sum(nulls) <= 1


def test_no_word_and_a_readout_that_can_not_norm_twice_are_refused():
    with pytest.raises(UsageError, match="splits them all"):
        fdv(planted(), LAYERS, contrast(), readout_of(), ())
    narrow = Readout(norm=torch.nn.Linear(WIDTH, 5), weight=torch.randn(VOCAB, 5))
    assert len(fdv(planted(), LAYERS, contrast(), narrow, IDS).values) == len(LAYERS)
    with pytest.raises(UsageError, match="projects"):
        fdv(planted(), LAYERS, contrast(), narrow, IDS, double_norm=True)


def test_the_published_words_are_twenty():
    assert len(set(WORDS)) == 20


def fired_at(layers_of_harmful, layers_of_harmless):
    fires = np.zeros((80, len(LAYERS)), dtype=bool)
    for first, kind in ((layers_of_harmful, 0), (layers_of_harmless, 1)):
        for place, layer in enumerate(first):
            if layer is not None:
                fires[2 * place + kind, layer] = True
    return Firing("rule", LAYERS, fires)


def test_a_rule_gives_the_share_it_has_fired_on_and_a_censored_median():
    firing = fired_at([4] * 30 + [None] * 10, [7] * 10 + [None] * 30)
    curve = firing.curve(contrast())
    assert curve.values.tolist() == [0] * 4 + [0.75] * 3 + [0.5] * 3
    assert curve.onset().value == 4 and curve.kinds[1].value[-1] == 0.25
    assert firing.median_onset(contrast()).value == 4
    harmful = twins().harmful
    expected = bootstrap_censored_median(firing.onset[harmful], twins().weights[:, harmful])
    assert firing.median_onset(contrast()) == expected
    swapped = Contrast.between(twins(), ~harmful, names=("harmless", "harmful"))
    assert np.isinf(firing.median_onset(swapped).value)


def test_a_rule_that_fires_on_both_kinds_alike_has_no_onset_of_its_own():
    alike = fired_at([4] * 40, [4] * 40)
    assert np.isinf(alike.curve(contrast()).onset().value) and alike.median_onset(contrast()).value == 4


def test_the_probes_curve_is_the_auroc_of_its_sweep(trained):
    layers = tuple(range(PROBE_LAYERS))
    curve = probe_onset(trained, layers)
    refused, folds = trained.sample.refused, trained.sample.folds.of
    assert np.allclose(curve.values, [auroc(s, refused, None, folds)[0] for s in trained.swept.scores])
    assert (curve.null, curve.share, curve.contrast) == (0.5, 0.9, "refused - complied")
    assert (curve.onset().value, curve.onset().lo, curve.onset().hi) == (PLANTED, PLANTED, PLANTED)
    assert curve.height.lo > 0.9 and curve.n == len(refused)
