"""The mean state of a modality at every layer, which the centred guide takes off before it compares."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tga.guide import States

MOMENTUM = 0.05


@dataclass(slots=True)
class RunningMean:
    """The mean of image states, which move while the projector is trained.

    It is the plain mean of the first 20 batches and an exponential mean with weight 0.05 after them. It carries no
    gradient: a direction that all pictures share is taken off, and can not be trained.

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

    def update(self, states: States) -> None:
        """Takes in the pictures of a batch, before they are centred by `taken_from`."""
        self.batches += 1
        weight = max(1 / self.batches, MOMENTUM)
        self.mean += weight * (states.detach().float().mean(0) - self.mean)

    def taken_from(self, states: States) -> States:
        """States without the mean, in float32; the very first batch of a single picture becomes zero."""
        return states.float() - self.mean


def text_mean(captions: States) -> Float[Tensor, "layer d_model"]:
    """The mean over the caption states of all training pictures, float32: one for captions and retrieved texts alike.

    Both are text, so that what tells them apart is left in.
    """
    return captions.float().mean(0)
