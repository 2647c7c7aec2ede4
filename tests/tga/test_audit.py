import math
from dataclasses import replace

import pytest
import torch

from interp.errors import TrainingError
from interp.tga.audit import GradientAudit, gradients_of, require_honest
from interp.tga.guide import guide_loss
from interp.tga.variants import VARIANTS


def losses(name, seed=0):
    """A projector of one matrix, the guide on what it gives, and a language loss on the same."""
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(6, 4))
    projected = (torch.randn(3, 4) @ weight.T)[:, None].expand(3, 2, 6)
    guide = guide_loss(projected, torch.randn(3, 2, 6), torch.randn(3, 2, 6), VARIANTS[name]).loss
    return guide, projected.square().mean(), weight


def audit_gradients(guide, language, parameters):
    return GradientAudit.of(*gradients_of((guide, language), parameters))


def test_norms_and_cosine_are_those_of_the_gradients():
    guide, language, weight = losses("paper")
    found = audit_gradients(guide, language, [weight])
    assert weight.grad is None, "the parameters' own gradients stay as they are"
    guide.backward(retain_graph=True)
    of_guide, weight.grad = weight.grad.clone(), None
    language.backward(retain_graph=True)
    assert found.guide_norm == pytest.approx(float(of_guide.norm()), rel=1e-6)
    assert found.language_norm == pytest.approx(float(weight.grad.norm()), rel=1e-6)
    cosine = torch.nn.functional.cosine_similarity(of_guide.flatten(), weight.grad.flatten(), dim=0)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-5)
    assert found.share == pytest.approx(found.guide_norm / (found.guide_norm + found.language_norm))
    same = audit_gradients(losses("paper")[1], language, [weight])
    assert same.guide_norm == 0, "a loss of other parameters"


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_passes_with_the_gradient_it_says_it_has(name):
    guide, language, weight = losses(name)
    audit = audit_gradients(guide, language, [weight])
    require_honest(audit, VARIANTS[name])
    assert (audit.guide_norm > 0) == (name in ("paper", "centred"))
    assert math.isnan(audit.cosine) == (audit.guide_norm == 0)


def test_a_guide_that_trains_nothing_is_refused():
    guide, language, weight = losses("released")
    audit = audit_gradients(guide, language, [weight])
    with pytest.raises(TrainingError, match="zero"):
        require_honest(audit, VARIANTS["paper"])
    with pytest.raises(TrainingError, match="zero"):
        require_honest(audit, replace(VARIANTS["released"], has_gradient=True))
    require_honest(audit, replace(VARIANTS["paper"], weight=0.0))


def test_a_gradient_where_there_should_be_none_or_no_number_is_refused():
    guide, language, weight = losses("paper")
    with pytest.raises(TrainingError, match="by definition"):
        require_honest(audit_gradients(guide, language, [weight]), VARIANTS["released"])
    with pytest.raises(TrainingError, match="fp32"):
        require_honest(GradientAudit(math.nan, 1.0, 0.0), VARIANTS["paper"])
