"""Trainings that differ by their seed alone, as one; and which of them is held against which."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analyses.cross_modal.transfer import DSR, OVER_REFUSAL
from analyses.tga.evaluation import Evaluated
from analyses.tga.runs import RETRIEVAL, require_comparable
from interp.scenes.catalogue import SYMBOLIC
from interp.stats import group_weights
from interp.tga.variants import VARIANTS

NAMED, LOSS, ORDINARY = "captions named", "caption loss (nats per token)", "refusal of ordinary pictures"
ODDS, TWIN_ODDS = "refusal log-odds of harmful pictures (nats)", "refusal log-odds of their twins (nats)"
NO_GUIDE, RETRIEVED = "no-guide", "retrieved-text-only"
Weights = Float[ndarray, "resample pair"]


@dataclass(frozen=True)
class Group:
    """Trainings that differ by their seed alone, on the same pairs.

    Attributes:
        name: of the group.
        members: one per seed.
        seed: of the bootstrap.
    """

    name: str
    members: tuple[Evaluated, ...]
    seed: int = 0

    @property
    def first(self) -> Evaluated:
        """Any of them, for what they share."""
        return self.members[0]

    @cached_property
    def weights(self) -> Weights:
        """Of the pairs, a row per resample of concepts; the same for all groups on the same pairs."""
        return group_weights(self.first.units, seed=self.seed)

    def values(self, judge: str, arm: str, measure: str) -> Float[ndarray, "member pair"]:
        """A measure of every training by pair; NaN for pairs that are not meant."""
        pairs = self.first.pairs
        harmful = [p.label == "harmful" and p.scene not in SYMBOLIC for p in pairs]
        twins = [p.twin_of is not None and p.scene not in SYMBOLIC for p in pairs]
        meant = {
            DSR: harmful,
            OVER_REFUSAL: twins,
            ODDS: harmful,
            TWIN_ODDS: twins,
            ORDINARY: [p.scene is None for p in pairs],
            NAMED: [p.label == "harmless" for p in pairs],
            LOSS: [p.label == "harmless" for p in pairs],
        }[measure]
        every = {
            NAMED: lambda e: e.named.astype(float),
            LOSS: lambda e: e.loss,
            ODDS: lambda e: e.log_odds,
            TWIN_ODDS: lambda e: e.log_odds,
        }.get(measure, lambda e: e.refused[judge, arm])
        return np.stack([np.where(meant, every(member), np.nan) for member in self.members])


def grouped(found: Sequence[Evaluated], *, seed: int = 0) -> tuple[Group, ...]:
    """The trainings by group, in order of first appearance.

    Raises:
        UsageError: when a seed was given twice, or two of a group differ in more than their seed.
    """
    require_comparable([e.run for e in found])
    names = dict.fromkeys(e.run.group for e in found)
    return tuple(Group(name, tuple(e for e in found if e.run.group == name), seed) for name in names)


def without_guide(group: Group, groups: Sequence[Group], variant: str) -> Group | None:
    """The training to hold a group against: of this variant with its own prompt, all else but the guide the same."""
    in_prompt = VARIANTS[variant].retrieved_in_prompt
    # Without a text, what could have been retrieved is no difference.
    left_out = () if in_prompt else RETRIEVAL
    own = group.first.run.surroundings(*left_out)
    for other in groups:
        its = other.first.run
        plain = its.variant == variant and its.retrieved_in_prompt == in_prompt
        if plain and other.name != group.name and its.surroundings(*left_out) == own:
            return other
    return None


def by_seed(values: Float[ndarray, "member pair"]) -> list[float]:
    """The mean over pairs of every training; NaN where none has a value."""
    return [float(np.nanmean(own)) if not np.isnan(own).all() else np.nan for own in values]


def over_seeds(values: Float[ndarray, "member pair"]) -> Float[ndarray, " pair"]:
    """The mean over seeds; an answer that can not be read with one seed counts with the others."""
    there = ~np.isnan(values).all(0)
    means = np.full(values.shape[1], np.nan)
    means[there] = np.nanmean(values[:, there], axis=0)
    return means
