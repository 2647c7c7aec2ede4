"""Edits that mean nothing: as large as a real one, in a direction or from a prompt drawn at random."""

import math
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.causal.edits import Ablation, Addition, Patch, PlaceStates, SubspacePatch, displacement
from interp.errors import UsageError

DRAWS = 20
"""How many directions are drawn from a covariance in search of one that removes enough."""

AnyPatch = TypeVar("AnyPatch", Patch, SubspacePatch)
Sized = Ablation | Addition | Patch | SubspacePatch
"""The edits whose size can be matched."""


def placebo(edit: Sized, seed: int, *, states: Float[Tensor, "row *place d_model"] | None = None) -> Sized:
    """An edit of the same size at the same layers and places, in a random direction at right angles to the real one.

    An `Ablation` gets another direction. At random (without ``states``) it meets little of a state, so it removes far
    less than the real one. With ``states`` it is turned from there towards one drawn from their covariance, which
    removes much (of some models far too much: a few coordinates hold most of their variance), up to where it removes
    as much as the real one does, in root mean square over the states; or as far as it goes. Say with `displacement`
    how much either removes. Where the real one leaves a mean along its direction, so does the placebo, that of
    ``states``. An `Addition` gets another vector of the same norm, at random or drawn from the covariance.

    A `Patch` or `SubspacePatch` becomes a patch that moves every state as far as the real one does, each row and place
    in a random direction of its own (not at right angles): x + |change| u. How far is known for the states as they are
    without other edits.

    Args:
        edit: what to stand beside.
        seed: of the draw.
        states: (row, d_model) or (row, place, d_model) states at the layer of the edit. For patches, which need them,
            the prompts' own states where the values would stand.

    Raises:
        UsageError: when a patch has no states of its shape, or states leave no direction but the real one.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(edit, Patch | SubspacePatch):
        return _same_displacement(edit, generator, states)
    real = edit.direction if isinstance(edit, Ablation) else edit.vector
    if isinstance(edit, Ablation):
        drawn = _as_removing(real.double().cpu(), generator, states)
        return replace(edit, direction=drawn.to(real), toward=_mean_along(drawn, edit, states))
    drawn = _drawn(real.double().cpu(), generator, states)
    return replace(edit, vector=(drawn * real.double().cpu().norm()).to(real))


def _mean_along(drawn: Float[Tensor, " d_model"], edit: Ablation, states: Tensor | None) -> float:
    """What is left along a placebo: nothing where the real edit leaves nothing, else the mean of the states."""
    if edit.toward == 0 or states is None:
        return 0.0
    return float((states.detach().double().cpu().flatten(0, -2) @ (drawn / drawn.norm())).mean())


def shuffled(edit: AnyPatch, seed: int) -> AnyPatch:
    """The patch with the values of another prompt in every row: as real as states are, and not the prompt's own.

    Raises:
        UsageError: for a patch of fewer than two rows.
    """
    return replace(edit, values=edit.values[another_for_each(len(edit.values), seed).to(edit.values.device)])


def another_for_each(n: int, seed: int) -> Int[Tensor, " row"]:
    """For each of ``n`` rows another one, each row once.

    Raises:
        UsageError: for fewer than two rows.
    """
    if n < 2:
        raise UsageError("a patch of one row has no other prompt to take values from; give two or more.")
    # One cycle through all rows in random order leaves none in its place.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    source = torch.empty_like(order)
    source[order] = order.roll(1)
    return source


def _as_removing(
    real: Float[Tensor, " d_model"], generator: torch.Generator, states: Tensor | None
) -> Float[Tensor, " d_model"]:
    """A direction at right angles to the real one that removes as much of the states, as far as one can be found."""
    plain = _drawn(real, generator, None)
    if states is None:
        return plain
    rows = states.detach().double().cpu().flatten(0, -2)
    wanted = (rows @ real).norm() / real.norm()
    # One draw may happen to miss what the states vary along; the first that removes enough is taken, else the last.
    for _ in range(DRAWS):
        varied = _drawn(real, generator, states)
        if (rows @ varied).norm() >= wanted:
            break

    def turned(angle: float) -> Tensor:
        mixed: Tensor = nn.functional.normalize(math.cos(angle) * plain + math.sin(angle) * varied, dim=0)
        return mixed

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (rows @ turned(middle)).norm() < wanted else (low, middle)
    return turned(high)


def _drawn(
    real: Float[Tensor, " d_model"], generator: torch.Generator, states: Tensor | None
) -> Float[Tensor, " d_model"]:
    """A direction of length 1 at right angles to the real one: uniform, or normal with the covariance of states."""
    if states is None:
        drawn = torch.randn(len(real), generator=generator, dtype=torch.float64)
    else:
        rows = states.detach().double().cpu().flatten(0, -2)
        # A sum of centred rows with standard normal weights has their covariance, up to a factor.
        drawn = torch.randn(len(rows), generator=generator, dtype=torch.float64) @ (rows - rows.mean(0))
    whole = drawn.norm()
    if real.norm() > 0:
        unit = real / real.norm()
        drawn = drawn - (drawn @ unit) * unit
    if not drawn.norm() > 1e-9 * whole:
        raise UsageError("placebo: these states vary along the direction of the edit alone; give more states.")
    unit_drawn: Tensor = drawn / drawn.norm()
    return unit_drawn


def _same_displacement(edit: Patch | SubspacePatch, generator: torch.Generator, states: PlaceStates | None) -> Patch:
    if states is None or states.shape != edit.values.shape:
        given = "none" if states is None else str(tuple(states.shape))
        raise UsageError(
            f"placebo of a patch: states {given}, but its values are {tuple(edit.values.shape)}; give the prompts' own "
            "states at the same layer and places."
        )
    own = states.detach().double().cpu()
    size = displacement(replace(edit, values=edit.values.cpu()), own)
    drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64)
    moved = own + size[..., None] * drawn / drawn.norm(dim=-1, keepdim=True)
    return Patch(moved.float().to(edit.values.device), edit.layer, edit.at)
