"""The mean state of a modality at every layer, which the centred guide takes off before it compares."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.05


@dataclass(slots=True)
class RunningMean:
    """The mean of image states, which move while the projector is trained.

    It is the plain mean of 20 batches that are read before the first step, and an exponential mean with weight 0.05
    over the steps. It carries no gradient: a direction that all pictures share is taken off, and can not be trained.

    Attributes:
        mean: (layer, d_model) float32; zeros before the first batch.
        batches: how many it was made from.
    """

    mean: Float[Tensor, "layer d_model"]
    batches: int = 0

    @classmethod
    def empty(cls, layers: int, d_model: int, device: torch.device | str = "cpu") -> "RunningMean":
        """A mean of no batches yet."""
        return cls(torch.zeros(layers, d_model, device=device))

    def update(self, mean: Float[Tensor, "layer d_model"]) -> None:
        """Takes in the mean of a batch."""
        self.batches += 1
        self.mean = self.mean + max(1 / self.batches, MOMENTUM) * (mean.detach().float() - self.mean)
