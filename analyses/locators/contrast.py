"""Which prompts a locator sets against which, and how they are resampled."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.sample import Sample
from interp.axes import States
from interp.errors import NonFinite, UsageError
from interp.stats import group_weights

ROUNDING = 1e-7
"""Spread of a layer's states, as a share of their size, that is only the rounding of float32."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two kinds of prompts, the first set against the other.

    Attributes:
        names: of the first kind and of the other, such as harmful and harmless.
        kept: (prompt,) which prompts are of either kind; all others are left out.
        first: (row,) which of the kept prompts, in their order, are of the first kind.
        groups: resampling unit of every row; twins share one.
        weights: (resample, row) how often each row is drawn.
        seed: of splits, pairs and shuffles made with this contrast.
    """

    names: tuple[str, str]
    kept: Bool[ndarray, " prompt"]
    first: Bool[ndarray, " row"]
    groups: tuple[str, ...]
    weights: Float[ndarray, "resample row"]
    seed: int

    def __post_init__(self) -> None:
        n, m = int(self.first.sum()), int((~self.first).sum())
        if not (n and m):
            raise UsageError(
                f"{n} {self.names[0]} and {m} {self.names[1]} prompts: a locator compares the two kinds. "
                "Add prompts of the kind that is missing, with labels."
            )

    @classmethod
    def of(cls, sample: Sample) -> "Contrast":
        """What was asked: harmful against harmless prompts; the unlabelled are left out.

        Raises:
            UsageError: when there are prompts of one kind only.
        """
        return cls.between(sample, sample.harmful, among=sample.labelled, names=("harmful", "harmless"))

    @classmethod
    def between(
        cls,
        sample: Sample,
        first: Bool[ndarray, " prompt"],
        *,
        among: Bool[ndarray, " prompt"] | None = None,
        names: tuple[str, str] = ("refused", "complied"),
    ) -> "Contrast":
        """Any two kinds, by default what the model did.

        Args:
            sample: all prompts, with their groups and draws.
            first: which of them are of the first kind.
            among: which of them count; all by default.
            names: of the first kind and of the other.

        Raises:
            UsageError: when there are prompts of one kind only.
        """
        kept = np.ones(len(sample), dtype=bool) if among is None else among
        part = sample.only(kept)
        return cls(names, kept, first[kept], part.groups, part.weights, sample.seed)

    @classmethod
    def of_rows(
        cls, first: Bool[ndarray, " row"], groups: tuple[str, ...], *, names: tuple[str, str], seed: int
    ) -> "Contrast":
        """Two kinds of rows that stand for no prompt set, with draws of their own."""
        return cls(names, np.ones(len(first), dtype=bool), first, groups, group_weights(groups, seed=seed), seed)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def name(self) -> str:
        """As the ``group`` of a layer table: "harmful - harmless"."""
        return " - ".join(self.names)

    @property
    def codes(self) -> Int[ndarray, " row"]:
        """The number of every row's group, in the order of their names, so that no draw depends on the rows' order."""
        return np.asarray(np.unique(np.array(self.groups), return_inverse=True)[1])

    def by_layer(self, states: States) -> Iterator[Float[Tensor, "row d_model"]]:
        """The kept states of one layer after the other, in float64, with the mean over rows taken off.

        The mean is most of a residual state, and one coordinate is often most of the mean; what kinds differ by is
        lost beside it in float32. A layer whose states differ by no more than rounding, as embeddings of one template
        token do, becomes exactly 0.

        Raises:
            UsageError: when the states are of another number of prompts.
            NonFinite: for a state that is NaN or infinite.
        """
        if len(states) != len(self.kept):
            raise UsageError(f"states of {len(states)} prompts, but the contrast is of {len(self.kept)}.")
        rows = torch.from_numpy(np.flatnonzero(self.kept))
        for i in range(states.shape[1]):
            layer = states[rows, i].double()
            if not layer.isfinite().all():
                raise NonFinite(f"layer number {i} of those given holds NaN or infinity; harvest with --dtype fp32.")
            centred = layer - layer.mean(0)
            differs = centred.square().mean() > ROUNDING**2 * layer.square().mean()
            yield centred if differs else torch.zeros_like(centred)
