"""The ways of text-guided alignment, by name: what the guide loss is and what stands in the training prompt."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from interp.errors import UsageError

Form = Literal["softplus", "exponential", "none"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of training; a single field tells every two of them apart, or a few that a source has together.

    Attributes:
        name: as tables name it.
        form: softplus is the paper's loss, exponential that of the released code, none leaves the guide out.
        weight: factor on the whole guide loss.
        pair_weight: factor on the term that draws image states to their caption.
        contrast_weight: factor on the term that keeps the caption nearer to the image than to the retrieved text.
        decays: the two terms fade with (1 - t) and (1 - t)^2, t being the share of training done.
        layers: which layers are guided; None for 1 to N.
        mean_over_layers: average over layers instead of adding them up.
        has_gradient: False computes the loss and lets no gradient through.
        centred: cosines are taken after the mean of each modality was taken off.
        retrieved_in_prompt: the retrieved text stands before the image in the training prompt.
    """

    name: str
    form: Form
    weight: float = 1.0
    pair_weight: float = 1.0
    contrast_weight: float = 1.0
    decays: bool = False
    layers: tuple[int, ...] | None = None
    mean_over_layers: bool = False
    has_gradient: bool = True
    centred: bool = False
    retrieved_in_prompt: bool = False

    def __post_init__(self) -> None:
        for name in ("weight", "pair_weight", "contrast_weight"):
            # A negative one would drive pictures away from their captions.
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"variant {self.name}: {name} is {getattr(self, name)}; it must be 0 or more.")
        if not self.guides and (self.weight != 1 or self.layers is not None):
            raise UsageError(
                f"variant {self.name} has no guide, so that weight and layers say nothing; leave them out."
            )

    @property
    def guides(self) -> bool:
        """Whether there is a guide loss at all."""
        return self.form != "none"

    def layers_of(self, n_layers: int) -> tuple[int, ...]:
        """The layers guided in a model of ``n_layers`` blocks; layer i is the residual stream after block i.

        Raises:
            UsageError: for layers that the model does not have.
        """
        if not self.guides:
            return ()
        layers = tuple(range(1, n_layers + 1)) if self.layers is None else self.layers
        if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] <= n_layers:
            raise UsageError(f"variant {self.name}: layers {list(layers)} must ascend within 0 to {n_layers} here.")
        return layers


PAPER = Variant("paper", "softplus", retrieved_in_prompt=True)
"""The published loss on every layer, with the retrieved text before the image."""

RELEASED = Variant(
    "released",
    "exponential",
    pair_weight=0.25,
    contrast_weight=0.1,
    decays=True,
    layers=tuple(range(10, 19)),
    mean_over_layers=True,
    has_gradient=False,
)
"""The loss of the code released with the paper (xsc1234/VLM_Safety_Transfer, commit 2e1be15): exponentials of Python
numbers on layers 10-18, so that no gradient reaches the projector. That code also puts the retrieved text before the
image; here the prompt is that of ``no-guide``, so that the two differ by the loss alone."""

NO_GUIDE = Variant("no-guide", "none")
"""Captioning alone."""

RETRIEVED_TEXT_ONLY = Variant("retrieved-text-only", "none", retrieved_in_prompt=True)
"""Captioning with the retrieved text before the image: what ``paper`` does without its loss."""

CENTRED = Variant("centred", "softplus", centred=True, retrieved_in_prompt=True)
"""``paper`` with cosines that a direction common to all states of a modality can not raise."""

VARIANTS = {v.name: v for v in (PAPER, RELEASED, NO_GUIDE, RETRIEVED_TEXT_ONLY, CENTRED)}


def variant(name: str, **changed: Any) -> Variant:
    """The variant of a name.

    Args:
        name: one of `VARIANTS`.
        changed: fields of `Variant` that are put in the place of its own, such as ``layers`` or ``weight``.

    Raises:
        UsageError: for an unknown name, a weight below 0, or a weight or layers of a variant without a guide.
    """
    if name not in VARIANTS:
        raise UsageError(f"unknown variant {name!r}; choose one of {', '.join(VARIANTS)}.")
    return replace(VARIANTS[name], **changed)
