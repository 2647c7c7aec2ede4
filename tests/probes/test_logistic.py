import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import probes.logistic
from probes.logistic import fit_logistic, leading_axes
from probes.sweep import standardised

EXACT = {"iterations": 3000, "tolerance": 1e-9}


def problem(rows: int = 150, width: int = 12, seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Standardised states of a falling spectrum and noisy labels of both classes, in float64."""
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(1, rows, width, generator=rng, dtype=torch.float64) / torch.arange(1, width + 1)
    hidden = states @ torch.randn(width, 1, generator=rng, dtype=torch.float64)
    targets = (hidden + noise * torch.randn(1, rows, 1, generator=rng, dtype=torch.float64) > 0).double()
    targets[:, 0], targets[:, 1] = 1, 0
    return standardised(states)[0], targets


def gradient(
    states: Tensor, targets: Tensor, weights: Tensor, penalty: Tensor, directions: Tensor, biases: Tensor
) -> Tensor:
    """Of the documented loss, by autograd, at every site and column: (site, d + 1, column)."""
    v, b = directions.clone().requires_grad_(), biases.clone().requires_grad_()
    scores = states @ v + b.unsqueeze(1)
    each = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.expand_as(scores), reduction="none")
    loss = (weights * each).sum() + (penalty / 2 * v.square()).sum()
    return torch.cat([g if g.ndim == 3 else g.unsqueeze(1) for g in torch.autograd.grad(loss, (v, b))], dim=1)


def separable() -> tuple[Tensor, Tensor]:
    return problem(noise=0.0)


def imbalanced() -> tuple[Tensor, Tensor]:
    states, targets = problem()
    return states, targets * (torch.arange(150)[:, None] < 8)


def wide() -> tuple[Tensor, Tensor]:
    return problem(rows=30, width=100)


def constant() -> tuple[Tensor, Tensor]:
    states, targets = problem()
    states[..., 5:] = 0
    return states, targets


def outlier() -> tuple[Tensor, Tensor]:
    states, targets = problem()
    states[:, 3] *= 300
    return standardised(states)[0], targets


KINDS = (problem, separable, imbalanced, wide, constant, outlier)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1e-1, 1e-3])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_scikit_learn(kind, share: float, weighted: bool) -> None:
    states, targets = kind()
    rows = states.shape[1]
    weights = np.random.default_rng(0).exponential(size=rows) ** 2 if weighted else np.ones(rows)
    penalty = share * rows
    directions, biases = fit_logistic(
        states, targets, torch.tensor(weights)[None, :, None], torch.tensor([penalty]).double(), **EXACT
    )
    theirs = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    theirs.fit(states[0].numpy(), targets[0, :, 0].numpy(), weights)
    np.testing.assert_allclose(directions[0, :, 0], theirs.coef_[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(biases[0, 0], theirs.intercept_[0], rtol=1e-4, atol=1e-5)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(4, 60),
    width=st.integers(1, 50),
    share=st.floats(1e-4, 1.0),
    soft=st.booleans(),
)
@settings(max_examples=60)
def test_the_gradient_vanishes(seed: int, rows: int, width: int, share: float, soft: bool) -> None:
    states, targets = problem(rows, width, seed)
    rng = torch.Generator().manual_seed(seed)
    weights = torch.rand(1, rows, 1, generator=rng, dtype=torch.float64) + 0.1
    targets = 0.8 * targets + 0.1 if soft else targets
    penalty = torch.tensor([share * rows], dtype=torch.float64)
    found = fit_logistic(states, targets, weights, penalty, **EXACT)
    start = [torch.zeros_like(t) for t in found]
    left = gradient(states, targets, weights, penalty, *found).norm()
    assert left <= 1e-5 * gradient(states, targets, weights, penalty, *start).norm() + 1e-9


@given(seed=st.integers(0, 10_000), columns=st.integers(1, 6), sites=st.integers(1, 3))
@settings(max_examples=30)
def test_a_batch_equals_its_single_columns(seed: int, columns: int, sites: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    states = torch.cat([problem(40, 35, seed + i)[0] for i in range(sites)])
    targets = torch.cat([problem(40, 35, seed + i)[1] for i in range(columns)], dim=-1)
    weights = (torch.rand(sites, 40, columns, generator=rng, dtype=torch.float64) < 0.8).double()
    weights[:, :2] = 1
    penalty = 40 * 10 ** -(3 * torch.rand(columns, generator=rng, dtype=torch.float64))
    together = fit_logistic(states, targets, weights, penalty, **EXACT)
    for i in range(sites):
        for k in range(columns):
            one, own = slice(i, i + 1), slice(k, k + 1)
            alone = fit_logistic(states[one], targets[..., own], weights[one, :, own], penalty[own], **EXACT)
            for batch, single in zip(together, alone, strict=True):
                torch.testing.assert_close(batch[one, ..., own], single, rtol=1e-4, atol=1e-5)


def test_blocks_of_sites_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.cat([problem(seed=i)[0] for i in range(5)])
    targets = problem()[1].expand(5, -1, -1)
    weights, penalty = torch.ones_like(targets), torch.tensor([1.5, 0.15]).double()
    together = fit_logistic(states, targets, weights, penalty, **EXACT)
    monkeypatch.setattr(probes.logistic, "BLOCK", 1)
    for one, other in zip(together, fit_logistic(states, targets, weights, penalty, **EXACT), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_and_with_the_usual_tolerance_scores_are_close(kind) -> None:
    states, targets = kind()
    weights, penalty = torch.ones_like(targets), states.shape[1] * torch.tensor([1e-3, 1e-2, 1e-1]).double()
    exact = fit_logistic(states, targets, weights, penalty, **EXACT)
    rough = fit_logistic(states.float(), targets.float(), weights.float(), penalty.float())
    true, found = (states.double() @ v.double() + b.double().unsqueeze(1) for v, b in (exact, rough))
    assert rough[0].dtype == torch.float32
    assert ((found - true).square().mean(1) < 1e-3 * true.square().mean(1)).all()


def test_soft_labels_are_mixtures_of_rows() -> None:
    states, targets = problem()
    soft = 0.25 + 0.5 * targets
    weights, penalty = torch.ones_like(soft), torch.tensor([0.3]).double()
    found = fit_logistic(states, soft, weights, penalty, **EXACT)
    both = torch.cat([soft, 1 - soft], dim=1)
    spelt = fit_logistic(states.repeat(1, 2, 1), torch.cat([weights, 0 * weights], dim=1), both, penalty, **EXACT)
    for one, other in zip(found, spelt, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_columns_without_a_choice_stay_finite() -> None:
    states, targets = problem()
    targets = torch.cat([targets, torch.ones_like(targets), targets], dim=-1)
    weights = torch.ones_like(targets)
    weights[..., 2] = 0
    for dtype in (torch.float32, torch.float64):
        penalty = torch.full((3,), 0.1, dtype=dtype)
        directions, biases = fit_logistic(states.to(dtype), targets.to(dtype), weights.to(dtype), penalty)
        assert directions.isfinite().all()
        assert biases.isfinite().all()
        assert biases[0, 1] > 3  # all of the target class
        assert not directions[..., 2].any()  # nothing counts


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 40), width=st.integers(1, 40), rank=st.integers(1, 40))
def test_leading_axes_are_orthonormal_and_come_with_their_variance(seed: int, rows: int, width: int, rank: int) -> None:
    states, _ = problem(max(rows, 2), width, seed)
    weights = torch.rand(1, states.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes, spread = leading_axes(states, weights, rank)
    kept = axes.shape[-1]
    torch.testing.assert_close(axes.mT @ axes, torch.eye(kept, dtype=torch.float64)[None])
    moments = (states.mT @ (weights.unsqueeze(-1) * states))[0] / weights.sum()
    torch.testing.assert_close(spread[0].diag(), (axes[0].mT @ moments @ axes[0]), atol=1e-9, rtol=1e-6)
    assert spread.sum() <= torch.linalg.eigvalsh(moments)[-kept:].sum() + 1e-9


def test_leading_axes_find_the_few_directions_with_most_variance() -> None:
    states = torch.randn(1, 2000, 60, generator=torch.Generator().manual_seed(0))
    states[..., [5, 20, 41]] *= 10
    axes, spread = leading_axes(states, torch.ones(1, 2000), 16)
    torch.testing.assert_close(axes[0, [5, 20, 41], -3:].square().sum(0), torch.ones(3), atol=0.02, rtol=0)
    torch.testing.assert_close(spread[0, -3:], torch.full((3,), 100.0), atol=20, rtol=0)
