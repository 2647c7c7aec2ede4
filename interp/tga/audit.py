"""The gradient audit: what the guide and the language model each ask of the projector.

A guide loss that is computed outside of the graph is a number that trains nothing, and no curve shows it. So training
starts only after the guide's gradient was measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import TrainingError
from interp.tga.variants import Variant


@dataclass(frozen=True, slots=True)
class GradientAudit:
    """The gradients of the two losses on the same parameters, on one batch.

    Attributes:
        guide_norm: Euclidean norm of the guide's gradient; 0 for a loss without gradient.
        language_norm: the same of the language model's cross-entropy.
        cosine: between the two, in [-1, 1]; NaN where either is zero.
    """

    guide_norm: float
    language_norm: float
    cosine: float

    @classmethod
    def of(cls, guide: Float[Tensor, " parameter"], language: Float[Tensor, " parameter"]) -> "GradientAudit":
        """The audit of both gradients of a batch, float64; see `gradients_of`."""
        norms = float(guide.norm()), float(language.norm())
        cosine = float(guide @ language) / (norms[0] * norms[1]) if norms[0] * norms[1] else math.nan
        return cls(*norms, cosine)

    @property
    def share(self) -> float:
        """The guide's norm as a share of both, in [0, 1]; NaN where both are zero."""
        both = self.guide_norm + self.language_norm
        return self.guide_norm / both if both else math.nan


def gradients_of(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> Float[Tensor, "loss parameter"]:
    """The gradient of every loss, float64, leaving the graph and the parameters' own gradients as they are.

    Gradients of the micro-batches of a batch, and of the processes that share one, add up to those of the batch.

    Args:
        losses: scalars, with or without a graph.
        parameters: of the projector.

    Returns:
        A row per loss; zeros for what it does not depend on.
    """
    return torch.stack([_gradient(loss, parameters) for loss in losses])


def require_honest(audit: GradientAudit, variant: Variant) -> None:
    """Refuses a training whose guide does not do what its variant says.

    Raises:
        TrainingError: when the guide's gradient is zero though the variant guides, is not zero though the variant has
            none, or is no number.
    """
    if not math.isfinite(audit.guide_norm) or not math.isfinite(audit.language_norm):
        raise TrainingError(
            f"variant {variant.name}: the gradients on the projector are {audit.guide_norm} (guide) and "
            f"{audit.language_norm} (language model); a wider dtype (fp32) or a lower learning rate usually helps."
        )
    carries = variant.guides and variant.has_gradient and variant.weight != 0
    if carries and audit.guide_norm == 0:
        raise TrainingError(
            f"variant {variant.name}: the guide's gradient on the projector is zero, so it would train nothing. Only "
            "the variant released is known to have none; check its layers, its weight and that the projector is not "
            "frozen."
        )
    if not carries and audit.guide_norm != 0:
        raise TrainingError(
            f"variant {variant.name}: has no guide gradient by definition, but {audit.guide_norm:.3g} was measured."
        )


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of one loss as one vector."""
    found: Sequence[Tensor | None] = [None for _ in parameters]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
    return torch.cat([part.detach().double().flatten() for part in parts])
