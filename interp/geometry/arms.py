"""The two arms of a cross-modal comparison: states of pictures and of their captions, pair by pair."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from interp.axes import States
from interp.errors import NonFinite, UsageError
from interp.stats import RESAMPLES, group_weights

FOLDS = 4
ROUNDING = 1e-7
"""A difference of states below this share of their size is the rounding of float32."""


@dataclass(frozen=True)
class Arms:
    """States of the same pairs in two arms, at one position of each.

    The concept is the unit of every interval and every permutation: pictures of one thing in several styles are one
    observation, and a mismatch is always of two concepts.

    Attributes:
        image: states of the pictures.
        caption: states of their captions, in the same order.
        concepts: what every pair shows; pairs of one concept share the name.
        layers: layer numbers, ascending.
    """

    image: States
    caption: States
    concepts: tuple[str, ...]
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = (len(self.concepts), len(self.layers), self.image.shape[-1])
        for name, states in (("image", self.image), ("caption", self.caption)):
            if tuple(states.shape) != shape:
                raise UsageError(
                    f"{name} arm: states {tuple(states.shape)}, but pairs, layers and width are {shape}; both arms "
                    "need the same pairs, layers and width."
                )
            if not states.isfinite().all():
                pair, layer = (int(i) for i in (~states.isfinite()).any(-1).nonzero()[0])
                raise NonFinite(
                    f"{name} arm: NaN or infinity at layer {self.layers[layer]} of pair {pair} "
                    f"({self.concepts[pair]}); harvest with --dtype fp32."
                )
        if len(self.names) < 2:
            raise UsageError(
                f"{len(self.names)} concept: a pair is set against pairs of other concepts; give two concepts or more."
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The concepts, sorted, so that no draw depends on the order of the pairs."""
        return tuple(sorted(set(self.concepts)))

    @cached_property
    def codes(self) -> Int[ndarray, " pair"]:
        """The number of every pair's concept."""
        return np.searchsorted(np.array(self.names), np.array(self.concepts))

    def __len__(self) -> int:
        return len(self.concepts)

    def folds(self, count: int, *, seed: int) -> Int[ndarray, " concept"]:
        """The fold of every concept, drawn at random and as even as can be; one fold holds all.

        Raises:
            UsageError: when a fold would hold fewer than two concepts.
        """
        if count < 1 or (count > 1 and len(self.names) < 2 * count):
            raise UsageError(
                f"{len(self.names)} concepts in {count} folds: what is fitted on other folds is tested inside one, "
                f"which takes two concepts; give {2 * count} or more, or fewer folds."
            )
        return np.random.default_rng(seed).permutation(np.arange(len(self.names)) % count)

    def by_concept(self, rows: Float[Tensor, "pair *rest"]) -> Float[Tensor, "concept *rest"]:
        """The mean over the pairs of every concept."""
        flat = torch.from_numpy(self.share).to(rows) @ rows.reshape(len(rows), -1)
        return flat.reshape(len(self.names), *rows.shape[1:])

    @cached_property
    def share(self) -> Float[ndarray, "concept pair"]:
        """What every pair counts in the mean of its concept."""
        own = np.arange(len(self.names))[:, None] == self.codes
        return np.asarray(own / own.sum(1, keepdims=True))

    def weights(self, *, seed: int, resamples: int = RESAMPLES) -> Float[ndarray, "resample concept"]:
        """How often every concept is drawn in each bootstrap resample."""
        return group_weights(self.names, resamples=resamples, seed=seed)

    def only(self, chosen: Bool[ndarray, " pair"]) -> "Arms":
        """The pairs for which ``chosen`` is true."""
        rows = torch.from_numpy(np.flatnonzero(chosen))
        return Arms(self.image[rows], self.caption[rows], tuple(np.array(self.concepts)[chosen]), self.layers)

    def with_captions(self, rows: Int[ndarray, " pair"]) -> "Arms":
        """The same pictures beside the captions of other pairs: a control in which nothing matches.

        The true captions then stand in the floor, so where there is alignment the excess of the control is a little
        below 0, by about excess / (concepts - 1).
        """
        return replace(self, caption=self.caption[torch.from_numpy(rows)])
