"""The two edits of a plant: what writes a signal into the stream, and what says words where it is read."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LAST = (-1,)
"""t_post."""


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """Adds a vector to the states of some prompts.

    Attributes:
        vector: (d_model) in the unit of the states.
        layer: where.
        carried: (row,) by which prompts.
        at: t_post.
    """

    vector: Float[Tensor, " d_model"]
    layer: int
    carried: Bool[Tensor, " row"]
    at: tuple[int, ...] = LAST

    @property
    def width(self) -> int:
        """d_model of the states."""
        return len(self.vector)

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The layer it is written at."""
        return (self.layer,)

    def applied(
        self, states: Float[Tensor, "row place d_model"], rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row place d_model"]:
        """The states with the signal."""
        carried = self.carried.to(rows.device)[rows].to(states.device)
        return torch.where(carried[:, None, None], states + self.vector.to(states), states)


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Adds the words to every state beyond a threshold along a direction.

    Attributes:
        direction: (d_model) of length 1.
        threshold: in the unit of the states.
        words: (d_model) what is added.
        layer: where.
        at: t_post.
    """

    direction: Float[Tensor, " d_model"]
    threshold: float
    words: Float[Tensor, " d_model"]
    layer: int
    at: tuple[int, ...] = LAST

    @property
    def width(self) -> int:
        """d_model of the states."""
        return len(self.direction)

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The layer it reads and writes at."""
        return (self.layer,)

    def applied(
        self,
        states: Float[Tensor, "row place d_model"],
        rows: Int[Tensor, " row"],  # noqa: ARG002
    ) -> Float[Tensor, "row place d_model"]:
        """The states with the words where the signal is read."""
        seen = states.float() @ self.direction.to(states.device).float() > self.threshold
        return torch.where(seen[..., None], states + self.words.to(states), states)
