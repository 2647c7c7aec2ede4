"""Controls find a planted signal extreme, and noise ordinary."""

import numpy as np

from interp.prompts.prompt import user_prompt
from probes.controls import excess, permutation_null, random_direction_null, surface_baselines
from probes.splits import leave_one_out
from probes.sweep import sweep
from tests.probes.signals import planted


def test_shuffled_labels_never_reach_a_planted_signal():
    states, refused, groups, categories, _ = planted()
    null = permutation_null(states, refused, groups, leave_one_out(categories, groups), permutations=60)
    assert null.p == 1 / 61 and null.observed > 0.95 > null.upper


def test_noise_is_one_of_its_own_permutations():
    states, refused, groups, categories, _ = planted(strength=0.0)
    null = permutation_null(states, refused, groups, leave_one_out(categories, groups), permutations=60)
    assert null.p > 0.05


def test_random_directions_do_not_reach_one_planted_direction():
    states, refused, groups, categories, _ = planted()
    null = random_direction_null(states, refused, leave_one_out(categories, groups), observed=0.97, directions=50)
    assert null.upper < 0.97


def test_the_excess_is_over_the_best_baseline_and_pairs_resamples():
    states, refused, groups, categories, _ = planted()
    folds = leave_one_out(categories, groups)
    scores = sweep(states, refused, folds).nested()
    rng = np.random.default_rng(0)
    weak = refused + 2 * rng.normal(size=len(refused))
    found = excess(scores, {"weak": weak, "noise": rng.normal(size=len(refused))}, refused, groups, folds)
    assert found.best == "weak"
    assert found.value.value == found.probe.value - found.baselines["weak"].value
    assert found.value.lo > 0
    same = excess(scores, {"itself": scores}, refused, groups, folds)
    assert same.value.value == same.value.lo == same.value.hi == 0


def test_a_behaviour_that_follows_one_word_leaves_no_excess():
    states, refused, groups, categories, _ = planted()
    prompts = [
        user_prompt(f"p{i}", f"Tell me about topic {i % 7} {'please' if r else 'now'}.", group=g)
        for i, (r, g) in enumerate(zip(refused, groups, strict=True))
    ]
    folds = leave_one_out(categories, groups)
    baselines = surface_baselines(prompts, refused, folds)
    found = excess(sweep(states, refused, folds).nested(), baselines, refused, groups, folds)
    assert found.baselines["words"].value > 0.99 and found.value.hi < 0.06 and found.value.lo <= 0
