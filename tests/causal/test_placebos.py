from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp.causal import Ablation, Addition, Edit, Patch, SubspacePatch, displacement, placebo, shuffled
from interp.errors import UsageError
from tests.causal.test_editing import drawn

SEEDS = range(5)


def stretched(n: int = 400) -> Tensor:
    """States that vary along a few directions only, as those of models do."""
    return drawn(n, 3) @ (10 * drawn(3, 64, seed=1)) + 0.1 * drawn(n, 64, seed=2) + 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("states", [None, stretched()])
def test_an_addition_s_placebo_has_its_norm_and_none_of_its_direction(seed: int, states: Tensor | None) -> None:
    edit = Addition(7 * drawn(64, seed=9), 2, at=(-1,))
    false = placebo(edit, seed, states=states)
    assert isinstance(false, Addition)
    assert (false.layer, false.at) == (2, (-1,))
    assert float(false.vector.norm()) == pytest.approx(float(edit.vector.norm()), rel=1e-5)
    assert abs(float(torch.cosine_similarity(false.vector, edit.vector, 0))) < 1e-5
    x = drawn(3, 1, 64)
    assert torch.allclose(displacement(false, x), displacement(edit, x), rtol=1e-4)


def test_a_placebo_from_the_covariance_removes_about_what_states_hold() -> None:
    states = stretched()
    axis = torch.linalg.svd(states - states.mean(0)).Vh[1]
    edit, centred = Ablation(axis, layers=(1,)), (states - states.mean(0))[:, None]
    removed = displacement(edit, centred).mean()
    plain = torch.stack([displacement(placebo(edit, seed), centred).mean() for seed in SEEDS])
    alike = torch.stack([displacement(placebo(edit, seed, states=states), centred).mean() for seed in SEEDS])
    assert plain.max() < 0.6 * removed < alike.min() * 1.5
    assert alike.mean() > 2 * plain.mean()


def test_an_ablation_s_placebo_removes_as_much_as_the_real_one_where_some_coordinate_holds_far_more() -> None:
    states = drawn(200, 64)
    states[:, 0] *= 100  # as in models with a few very large coordinates
    direction = drawn(64, seed=1)
    direction[0] = 4
    edit = Ablation(direction)

    def removed(edit: Edit) -> Tensor:
        return displacement(edit, states[:, None]).square().mean().sqrt()

    for seed in SEEDS:
        false = placebo(edit, seed, states=states)
        assert float(removed(false)) == pytest.approx(float(removed(edit)), rel=1e-3)
        assert removed(placebo(edit, seed)) < 0.8 * removed(edit)
        assert abs(float(torch.cosine_similarity(false.direction, direction, 0))) < 1e-5  # type: ignore[union-attr]


def test_covariance_directions_have_the_covariance() -> None:
    states = stretched(60)[:, :4]
    edit = Addition(torch.zeros(4), 0)  # at right angles to nothing
    found = torch.stack([placebo(Ablation(torch.eye(4)[0]), s, states=states[:, :4]).direction for s in range(3)])  # type: ignore[union-attr]
    assert (found[:, 0].abs() < 1e-6).all()
    assert float(placebo(edit, 0, states=states).vector.norm()) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "edit", [Patch(drawn(5, 2, 64), 3, (-1, -2)), SubspacePatch(drawn(5, 2, 64), drawn(3, 64), 1, (-1, -2))]
)
def test_a_patch_s_placebo_moves_every_state_as_far(edit: Edit) -> None:
    own = drawn(5, 2, 64, seed=4)
    for seed in SEEDS:
        false = placebo(edit, seed, states=own)
        assert isinstance(false, Patch)
        assert false.at_layers(9) == edit.at_layers(9) and false.at == edit.at
        assert torch.allclose(displacement(false, own), displacement(edit, own), rtol=1e-4)
        moved, real = false.values - own, edit.applied(own, torch.arange(5)) - own
        assert torch.cosine_similarity(moved, real, -1).abs().max() < 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_is_the_same_placebo(seed: int) -> None:
    state = torch.get_rng_state()
    edit = Ablation(drawn(64))
    one, same, other = placebo(edit, seed), placebo(edit, seed), placebo(edit, seed + 1)
    assert torch.equal(one.direction, same.direction)  # type: ignore[union-attr]
    assert not torch.equal(one.direction, other.direction)  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_shuffled_values_are_another_prompt_s(rows: int) -> None:
    patch = Patch(torch.arange(rows).float()[:, None, None].expand(rows, 1, 4), 1, (-1,))
    for seed in SEEDS:
        values = shuffled(patch, seed).values[:, 0, 0].long().tolist()
        assert sorted(values) == list(range(rows))
        assert all(value != row for row, value in enumerate(values))


def test_what_can_not_be_drawn_is_refused() -> None:
    patch = Patch(drawn(2, 1, 4), 1, (-1,))
    with pytest.raises(UsageError, match="states none"):
        placebo(patch, 0)
    with pytest.raises(UsageError, match=r"states \(3, 1, 4\)"):
        placebo(patch, 0, states=drawn(3, 1, 4))
    with pytest.raises(UsageError, match="one row"):
        shuffled(replace(patch, values=patch.values[:1]), 0)
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2, 0, 0])
    with pytest.raises(UsageError, match="vary along the direction of the edit alone"):
        placebo(Ablation(torch.tensor([1.0, 2, 0, 0])), 0, states=line)
