import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

import probes.linear
from probes.linear import fit_discriminant, fit_mean_difference

ROWS, WIDTH = 60, 5


def drawn(seed: int, sites: int = 2, columns: int = 3, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """States, targets and weights in float64; every column holds both classes, and leaves some rows out."""
    rng = torch.Generator().manual_seed(seed)
    targets = (torch.rand(1, rows, columns, generator=rng, dtype=torch.float64) < 0.4).double()
    targets[:, 0], targets[:, 1] = 1, 0
    weights = (torch.rand(1, rows, columns, generator=rng, dtype=torch.float64) < 0.7).double()
    weights[:, :2] = 1
    spread = torch.linspace(0.2, 3, WIDTH, dtype=torch.float64)
    states = torch.randn(sites, rows, WIDTH, generator=rng, dtype=torch.float64) * spread + targets[..., :1]
    return states - states.mean(1, keepdim=True), targets, weights


def both_classes(states: Tensor, targets: Tensor, weights: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    kept = weights[0, :, k] > 0
    return states[kept].numpy(), targets[0, kept, k].numpy()


def test_mean_difference_equals_a_loop() -> None:
    states, targets, weights = drawn(0)
    directions, biases = fit_mean_difference(states, targets, weights)
    for site in range(2):
        for k in range(3):
            x, y = both_classes(states[site], targets, weights, k)
            yes, no = x[y == 1].mean(0), x[y == 0].mean(0)
            np.testing.assert_allclose(directions[site, :, k], yes - no)
            np.testing.assert_allclose((yes + no) / 2 @ (yes - no) + float(biases[site, k]), 0, atol=1e-12)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7, 1.0])
def test_discriminant_equals_scikit_learn(shrinkage: float) -> None:
    states, targets, weights = drawn(1)
    directions, biases = fit_discriminant(states, targets, weights, shrinkage=shrinkage)
    for site in range(2):
        for k in range(3):
            x, y = both_classes(states[site], targets, weights, k)
            theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
            np.testing.assert_allclose(directions[site, :, k], theirs.coef_[0], rtol=1e-9)
            np.testing.assert_allclose(biases[site, k], theirs.intercept_[0], rtol=1e-9, atol=1e-12)


def test_ledoit_wolf_is_that_of_the_rows_about_their_class_means() -> None:
    states, targets, weights = drawn(2)
    directions, _ = fit_discriminant(states, targets, weights)
    for site in range(2):
        for k in range(3):
            x, y = both_classes(states[site], targets, weights, k)
            about = x - np.where(y[:, None] == 1, x[y == 1].mean(0), x[y == 0].mean(0))
            s = ledoit_wolf_shrinkage(about, assume_centered=True)
            assert 0 < s < 1
            theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(x, y)
            np.testing.assert_allclose(directions[site, :, k], theirs.coef_[0], rtol=1e-9)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_discriminant])
@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS))
def test_a_weight_counts_rows(fit, seed: int, copies: list[int]) -> None:
    states, targets, _ = drawn(seed, sites=1, columns=1)
    times = torch.tensor([max(1, c) if i < 2 else c for i, c in enumerate(copies)])
    often = [x.repeat_interleave(times, dim=1) for x in (states, targets)]
    weighted = fit(states, targets, times[None, :, None].double())
    repeated = fit(*often, torch.ones_like(often[1]))
    for one, other in zip(weighted, repeated, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_discriminant])
@given(seed=st.integers(0, 10_000))
def test_classes_exchanged_turn_the_probe(fit, seed: int) -> None:
    states, targets, weights = drawn(seed)
    directions, biases = fit(states, targets, weights)
    turned, turned_biases = fit(states, 1 - targets, weights)
    torch.testing.assert_close(turned, -directions)
    torch.testing.assert_close(turned_biases, -biases)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_discriminant])
def test_columns_and_sites_do_not_touch(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    states, targets, weights = drawn(3, sites=5)
    together = fit(states, targets, weights)
    monkeypatch.setattr(probes.linear, "BLOCK", 1)  # one site at a time
    for one, other in zip(together, fit(states, targets, weights), strict=True):
        torch.testing.assert_close(one, other)
    alone = fit(states[3:4], targets[..., 1:2], weights[..., 1:2])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[3:4, ..., 1:2], other)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_discriminant])
def test_targets_and_weights_may_be_shared_by_columns_and_differ_by_site(fit) -> None:
    states, targets, weights = drawn(4)
    shared = fit(states, targets[..., :1], weights)
    spelt = fit(states, targets[..., :1].expand(2, -1, 3), weights.expand(2, -1, -1))
    for one, other in zip(shared, spelt, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_discriminant])
def test_a_column_of_one_class_is_silent(fit) -> None:
    states, targets, weights = drawn(5)
    targets[..., 0], targets[..., 1], weights[..., 2] = 1, 0, 0
    directions, biases = fit(states, targets, weights)
    assert not directions.any()
    assert not biases.any()


@pytest.mark.parametrize("shrinkage", [None, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_covariances_still_tell_the_classes_apart(shrinkage: float | None, dtype: torch.dtype) -> None:
    targets = (torch.arange(12) % 2).to(dtype)[None, :, None]
    few = torch.randn(1, 12, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)
    constant = torch.cat([few[..., :4], torch.zeros(1, 12, 8, dtype=dtype)], dim=-1)
    still = (targets - 0.5) * torch.ones(3, dtype=dtype)
    for states in (few, constant + targets, still):
        ready = states - states.mean(1, keepdim=True)
        directions, biases = fit_discriminant(ready, targets, torch.ones_like(targets), shrinkage=shrinkage)
        scores = ready @ directions + biases.unsqueeze(1)
        assert torch.equal(scores > 0, targets > 0.5)


def test_a_shrinkage_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        fit_discriminant(*drawn(0), shrinkage=1.5)
