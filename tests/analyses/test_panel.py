"""All locators of states and words side by side, on planted states."""

import numpy as np
import pytest
import torch

from analyses.locators.contrast import Contrast
from analyses.panel import Vocabulary, probe_curve, reading_curves, state_curves, tuned_curve
from analyses.sample import Sample
from interp.lens import TunedLens, logit_lens
from interp.models.hooks import HooksAdapter
from interp.prompts import PromptSet, user_prompt
from interp.prompts.families import load_family
from probes.splits import by_group
from tests.tiny import make_tokenizer, tiny_llama

LAYERS, WIDTH, AT = (0, 1, 2, 3, 4), 32, 3


@pytest.fixture(scope="module")
def model():
    return HooksAdapter.of_module(tiny_llama(), make_tokenizer())


@pytest.fixture(scope="module")
def planted():
    """Noise, and from one layer on a direction on harmful prompts."""
    prompts = [
        user_prompt(f"p{i}", f"text {i}", label=("harmful", "harmless")[i % 2], group=f"g{i // 2}") for i in range(80)
    ]
    sample = Sample.of(PromptSet("planted", tuple(prompts)), seed=0)
    drawn = torch.Generator().manual_seed(0)
    states = torch.randn(80, len(LAYERS), WIDTH, generator=drawn)
    states[torch.from_numpy(sample.harmful), AT:, 0] += 8
    return sample, states


def test_every_locator_of_states_finds_the_layer(planted):
    sample, states = planted
    found = state_curves(states, LAYERS, Contrast.of(sample))
    assert set(found) == {"mean_difference", "pair_angle", "pair_angle_middle", "mmd", "wasserstein", "linear_margin"}
    for name in set(found) - {"pair_angle"}:
        assert found[name].onset().value == AT and found[name].height.lo > found[name].null, name


def test_a_probe_finds_it_too_and_says_nothing_with_one_behaviour(planted):
    sample, states = planted
    folds = by_group(sample.groups, 5, seed=0)
    assert probe_curve(states, LAYERS, sample.harmful, folds, sample.groups, 0).onset().value == AT
    assert probe_curve(states, LAYERS, np.zeros(80, dtype=bool), folds, sample.groups, 0) is None


def test_locators_of_words_read_the_same_lens(model, planted):
    sample, states = planted
    words, readout = Vocabulary.of(model.tokenizer, load_family("apology")), model.readout()
    contrast = Contrast.of(sample)
    lens = logit_lens(states, readout, tokens=torch.tensor(words.lexicon.openings))
    given, _ = reading_curves(states, LAYERS, contrast, readout, words, lens)
    read, rules = reading_curves(states, LAYERS, contrast, readout, words)
    assert {"tga_paper", "tga_released", "opening_logodds"} <= set(given) == set(read)
    for name, curve in given.items():
        np.testing.assert_array_equal(curve.values, read[name].values)
    assert [rule.locator for rule in rules] == ["tga_paper", "tga_released"]


def test_a_tuned_lens_that_changes_nothing_reads_what_the_logit_lens_reads(model, planted):
    sample, states = planted
    words, readout = Vocabulary.of(model.tokenizer, load_family("apology")), model.readout()
    contrast = Contrast.of(sample)
    zeros = torch.zeros(len(LAYERS), WIDTH, WIDTH), torch.zeros(len(LAYERS), WIDTH)
    lens = TunedLens(LAYERS, *zeros, ("identity",) * 5, (0.0,) * 5, (0.0,) * 5, (1, 1, 1), {})
    tuned = tuned_curve(states, LAYERS, contrast, readout, words, lens)
    plain = reading_curves(states, LAYERS, contrast, readout, words)[0]["opening_logodds"]
    assert tuned.locator == "opening_logodds (tuned lens)"
    np.testing.assert_allclose(tuned.values, plain.values, atol=1e-5)
