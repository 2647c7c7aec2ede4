"""States of twins in which what separates the kinds is known: a direction from one layer on, or nothing."""

import numpy as np
import torch

from analyses.locators.contrast import Contrast
from analyses.sample import Sample
from interp.stats import group_weights

LAYERS, WIDTH, PAIRS = tuple(range(10)), 24, 40


def sample_of(labels, groups, seed=0, resamples=400):
    groups = tuple(groups)
    weights = group_weights(groups, resamples=resamples, seed=seed)
    return Sample(np.array(labels, dtype=object), groups, weights, seed)


def twins(pairs=PAIRS, seed=0):
    """Twins g0, g1, ...: a harmful prompt and its harmless one, side by side."""
    return sample_of(["harmful", "harmless"] * pairs, [f"g{i // 2:03d}" for i in range(2 * pairs)], seed)


def planted(layer=None, *, strength=4.0, pairs=PAIRS, seed=0, massive=6.0):
    """(prompt, layer, width) noise of which twins share half, and from ``layer`` on a step for the harmful ones.

    All share a mean in one coordinate, as residual states do.
    """
    rng = np.random.default_rng(seed)
    topic = np.repeat(rng.normal(size=(pairs, 1, WIDTH)), 2, axis=0)
    states = topic + rng.normal(size=(2 * pairs, len(LAYERS), WIDTH))
    if layer is not None:
        states[::2, layer:, 3] += strength
    states[:, :, 7] += massive
    return torch.from_numpy(states).float()


def contrast(pairs=PAIRS, seed=0):
    return Contrast.of(twins(pairs, seed))
