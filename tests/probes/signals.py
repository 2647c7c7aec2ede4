"""States in which a known direction carries refusal from a known layer on."""

import numpy as np
import torch

SITES, WIDTH, FROM = 6, 24, 3
CATEGORIES = 4


def planted(n=160, *, seed=0, strength=4.0, turned=0):
    """States (site, row, d), refused, groups, categories and the direction; below site FROM there is only noise."""
    rng = np.random.default_rng(seed)
    refused = rng.random(n) < 0.5
    direction = np.zeros(WIDTH)
    direction[turned] = 1.0
    states = rng.normal(size=(SITES, n, WIDTH))
    states[:, :, -1] += 30  # a rogue coordinate, as real models have
    states[FROM:] += strength * refused[None, :, None] * direction
    groups = [f"g{i // 2}" for i in range(n)]
    categories = [f"c{i // 2 % CATEGORIES}" for i in range(n)]
    return torch.from_numpy(states).float(), refused, groups, categories, direction
