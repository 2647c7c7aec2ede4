"""Caches in which refusal is planted along one direction of one layer, or nowhere."""

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from interp.cache import ActivationCache
from interp.prompts.prompt import PromptSet, user_prompt

WORDS = ("bread", "door", "letter", "noise", "wizard", "lock", "dog", "box", "lamp", "river", "stone", "cloud")
N, LAYERS, D, PLANTED = 120, 5, 24, 3


def planted_prompts(n: int = N, categories: int = 4) -> PromptSet:
    """Twins of random words, so that their form tells nothing."""
    rng = np.random.default_rng(3)
    return PromptSet(
        "planted",
        tuple(
            user_prompt(
                f"p{i}",
                f"Explain {' '.join(rng.choice(WORDS, 5))}.",
                label=("harmful", "harmless")[i % 2],
                category=f"c{i // 2 % categories}",
                group=f"g{i // 2}",
            )
            for i in range(n)
        ),
    )


def planted_labels(n: int = N) -> ndarray:
    """Harmful prompts are refused more often, but either kind is refused and answered."""
    rng = np.random.default_rng(0)
    return rng.random(n) < np.where(np.arange(n) % 2 == 0, 0.7, 0.3)


def planted_direction() -> Tensor:
    direction = torch.randn(D, generator=torch.Generator().manual_seed(7))
    return direction / direction.norm()


def planted_states(refused: ndarray, strength: float) -> Tensor:
    """(prompt, layer, d): noise, and from layer 3 on the direction for what is refused."""
    noise = torch.randn(len(refused), LAYERS, D, generator=torch.Generator().manual_seed(1))
    noise[:, PLANTED] += strength * torch.from_numpy(refused).float()[:, None] * planted_direction()
    return noise


def planted_cache(folder: Path, strength: float = 6.0, name: str = "planted") -> ActivationCache:
    states = planted_states(planted_labels(), strength)
    return ActivationCache.from_arrays({"t_post": states}, planted_prompts(), folder, name=name)


def noise_cache(folder: Path, name: str = "random twin of planted") -> ActivationCache:
    states = torch.randn(N, LAYERS, D, generator=torch.Generator().manual_seed(2))
    return ActivationCache.from_arrays({"t_post": states}, planted_prompts(), folder, name=name)
