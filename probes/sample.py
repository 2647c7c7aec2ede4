"""The rows a probe learns from: prompts that were refused or complied with, their states, and their folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from interp.cache import ActivationCache
from interp.errors import ModelMismatch, NonFinite, UsageError
from interp.prompts.prompt import Prompt, PromptSet
from interp.stats import group_codes
from probes.splits import FEWEST, Folds, by_group, leave_one_out
from probes.sweep import require_both

FOLDS = 6
BY_CATEGORY, BY_GROUP = "leave one category out", "by group"


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of a cache that count, at one position.

    Attributes:
        rows: their numbers in the cache.
        prompts: what was asked.
        refused: what the model did.
        states: the residuals; a site is a layer of the cache.
        sites: the layers a probe may choose from, as places in the cache's layers.
        folds: who tests whom.
        split: how the folds were made.
    """

    rows: Int[ndarray, " row"]
    prompts: tuple[Prompt, ...]
    refused: Bool[ndarray, " row"]
    states: Float[Tensor, "site row d"]
    sites: list[int]
    folds: Folds
    split: str

    @property
    def groups(self) -> list[str]:
        """The resampling unit of every row."""
        return [p.unit for p in self.prompts]

    def of(self, other: ActivationCache, cache: ActivationCache, position: str) -> Float[Tensor, "site row d"]:
        """The states of the same rows in another model's cache.

        Raises:
            ModelMismatch: when that holds other prompts or layers than this one.
            UsageError: when it is the very same run, or lacks the position.
        """
        if other.key == cache.key:
            raise UsageError(f"{other.place}: is the run of the model itself; give one of its random twin.")
        for field, mine, theirs in (
            ("prompts", cache.identity.get("prompts"), other.identity.get("prompts")),
            ("layers", cache.layers, other.layers),
        ):
            if mine != theirs:
                raise ModelMismatch(other.place, field, mine, theirs)
        return _states(other, position, self.rows)


def take_sample(
    cache: ActivationCache,
    prompts: PromptSet,
    refused: Sequence[bool | None] | Bool[ndarray, " prompt"],
    *,
    position: str,
    layer: int | None = None,
    seed: int = 0,
) -> Sample:
    """Reads the states of all prompts that count and puts them into folds.

    Args:
        cache: the states.
        prompts: those of the cache, in its order.
        refused: what the model did with each; None leaves a prompt out.
        position: where the states are read.
        layer: the only layer to choose; without it all but 0, which is a baseline.
        seed: of folds by group.

    Raises:
        ModelMismatch: when the cache is of other prompts.
        UsageError: when fewer than ten rows were refused or complied with, for too few groups, or for a position or
            layer that is not stored.
        NonFinite: when a state is NaN or infinite.
    """
    if cache.identity.get("prompts") != prompts.digest:
        raise ModelMismatch(cache.place, "prompts", cache.identity.get("prompts"), prompts.digest)
    if len(refused) != len(prompts):
        raise UsageError(f"{len(refused)} labels for {len(prompts)} prompts; give one each, None to leave one out.")
    rows = np.array([row for row, one in enumerate(refused) if one is not None], dtype=int)
    known = np.array([bool(one) for one in refused if one is not None], dtype=bool)
    require_both(known)
    if layer is not None and layer not in cache.layers:
        raise UsageError(f"{cache.place}: layer {layer} is not stored; it has {list(cache.layers)}.")
    taken = tuple(prompts.prompts[row] for row in rows)
    wanted = [layer] if layer is not None else [one for one in cache.layers if one > 0] or list(cache.layers)
    sites = [cache.layers.index(one) for one in wanted]
    folds, split = choose_folds(taken, known, seed=seed)
    return Sample(rows, taken, known, _states(cache, position, rows), sites, folds, split)


def choose_folds(prompts: Sequence[Prompt], refused: Bool[ndarray, " row"], *, seed: int = 0) -> tuple[Folds, str]:
    """One fold per category where at least three hold both behaviours and no group is in two of them, else by group.

    Returns:
        The folds, and in words how they were made.

    Raises:
        UsageError: for fewer than three groups.
    """
    groups = [p.unit for p in prompts]
    categories = [p.category or "" for p in prompts]
    both = [
        c for c in set(categories) if len({bool(r) for k, r in zip(categories, refused, strict=True) if k == c}) == 2
    ]
    whole = len(set(zip(groups, categories, strict=True))) == len(set(groups))
    if all(categories) and len(both) >= FEWEST and whole:
        return leave_one_out(categories, groups), BY_CATEGORY
    count = min(FOLDS, len(np.unique(group_codes(groups))))
    return by_group(groups, count, seed=seed), BY_GROUP


def _states(cache: ActivationCache, position: str, rows: Int[ndarray, " row"]) -> Float[Tensor, "site row d"]:
    states = cache.residuals(position=position)[torch.from_numpy(rows)].transpose(0, 1).contiguous()
    if not states.isfinite().all():
        raise NonFinite(
            f"{cache.place}: holds states at {position} that are NaN or infinite; harvest with --dtype fp32."
        )
    return states
