"""The gradient audit: what the guide and the language model each ask of the projector.

A guide loss that is computed outside of the graph is a number that trains nothing, and no curve shows it. So training
starts only after the guide's gradient was measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
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

    @property
    def share(self) -> float:
        """The guide's norm as a share of both, in [0, 1]; NaN where both are zero."""
        both = self.guide_norm + self.language_norm
        return self.guide_norm / both if both else math.nan


def audit_gradients(guide: Tensor, language: Tensor, parameters: Sequence[Tensor]) -> GradientAudit:
    """Measures both gradients, leaving the graph and the parameters' own gradients as they are.

    Args:
        guide: scalar loss, with or without a graph.
        language: scalar loss, with or without a graph.
        parameters: of the projector.

    Returns:
        Norms and cosine, summed in float64.
    """
    of_guide, of_language = _gradient(guide, parameters), _gradient(language, parameters)
    norms = float(of_guide.norm()), float(of_language.norm())
    cosine = float(of_guide @ of_language) / (norms[0] * norms[1]) if norms[0] * norms[1] else math.nan
    return GradientAudit(norms[0], norms[1], cosine)


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
    """The gradient as one float64 vector; zeros for what the loss does not depend on."""
    found: Sequence[Tensor | None] = [None for _ in parameters]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
    return torch.cat([part.detach().double().flatten() for part in parts])
