"""The prompts of a study as a sample: what was asked, which belong together, and how they are resampled."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.prompts import PromptSet
from interp.stats import bootstrap_difference, bootstrap_mean, group_weights

DIFFERENCE = "harmful - harmless"
UNLABELLED = "unlabelled"
WithInterval = tuple[Float[ndarray, "*rest"], Float[ndarray, "*rest"], Float[ndarray, "*rest"]]


@dataclass(frozen=True)
class Sample:
    """Labels, groups and bootstrap draws of the prompts, in their order.

    Attributes:
        labels: harmful, harmless or unlabelled.
        groups: resampling units; twins share one.
        weights: (resample, prompt) how often each prompt is drawn.
        seed: of the draws, and of permutations made with this sample.
    """

    labels: Any
    groups: tuple[str, ...]
    weights: Float[ndarray, "resample prompt"]
    seed: int

    @classmethod
    def of(cls, prompts: PromptSet, *, seed: int) -> "Sample":
        """The sample of a prompt set."""
        groups = tuple(p.unit for p in prompts)
        labels = np.array([p.label or UNLABELLED for p in prompts], dtype=object)
        return cls(labels, groups, group_weights(groups, seed=seed), seed)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def kinds(self) -> list[str]:
        """The labels that occur, in order of appearance."""
        return list(dict.fromkeys(self.labels))

    @property
    def contrasted(self) -> bool:
        """Whether both harmful and harmless prompts are there."""
        return {"harmful", "harmless"} <= set(self.kinds)

    @cached_property
    def labelled(self) -> Bool[ndarray, " prompt"]:
        """Which prompts are harmful or harmless."""
        return np.asarray(self.labels != UNLABELLED)

    @cached_property
    def harmful(self) -> Bool[ndarray, " prompt"]:
        """Which prompts are harmful."""
        return np.asarray(self.labels == "harmful")

    def only(self, chosen: Bool[ndarray, " prompt"]) -> "Sample":
        """The part of the sample where ``chosen`` is true, with the same draws."""
        groups = tuple(g for g, c in zip(self.groups, chosen, strict=True) if c)
        return replace(self, labels=self.labels[chosen], groups=groups, weights=self.weights[:, chosen])

    def mean(self, values: Float[ndarray, "prompt *rest"], kind: str) -> tuple[WithInterval, int]:
        """The mean over one kind of prompt as (value, lo, hi), and its n."""
        chosen = self.labels == kind
        return bootstrap_mean(values[chosen], self.weights[:, chosen]), int(chosen.sum())

    def difference(self, values: Float[ndarray, "prompt *rest"]) -> tuple[WithInterval, int]:
        """The mean over harmful minus harmless prompts as (value, lo, hi), and how many prompts there are."""
        kept = self.labelled
        return bootstrap_difference(values[kept], self.harmful[kept], self.weights[:, kept]), int(kept.sum())
