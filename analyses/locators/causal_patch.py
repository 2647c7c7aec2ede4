"""Which layers carry the decision: the states of the other prompt of a twin put in, layer by layer.

Activation patching between minimal pairs (Vig et al. 2020, arXiv 2004.12265; Heimersheim & Nanda 2024, arXiv
2404.15255). At layer l and the places given, every prompt gets the states of its twin. How much more a harmless prompt
is then refused says whether those states suffice; how much less a harmful one is, whether they are needed. Below the
layer at which what decides has come to these places nothing moves; above it everything does.

Range: any number of nats, 0 where nothing moves. Beside it a placebo: the states of a stranger of the prompt's own
kind, which move as much and carry nothing of the twin.

Where it fails: what decides may lie at other places than those patched, or at several layers that make up for one
another; and a patched state is one that the model never computed there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.locators.curve import Curve
from interp.causal import Edit, Patch
from interp.errors import UsageError
from interp.stats import group_weights, weighted_mean

Read = Callable[[Sequence[Edit]], Float[ndarray, " row"]]
"""How much a refusal is expected, in nats, of every prompt under some edits."""


@dataclass(frozen=True, slots=True)
class PatchEffects:
    """What patching moved.

    Attributes:
        layers: where it was patched.
        harmful: (row,) which prompts are the harmful ones of their twins.
        groups: of every row.
        before: (row,) the reading without patches, nats.
        moved: (row, layer) reading with the twin's states in, minus ``before``.
        placebo: (row, layer) the same with the states of a stranger of the prompt's own kind.
    """

    layers: tuple[int, ...]
    harmful: Bool[ndarray, " row"]
    groups: tuple[str, ...]
    before: Float[ndarray, " row"]
    moved: Float[ndarray, "row layer"]
    placebo: Float[ndarray, "row layer"]

    def sufficiency(self, *, placebo: bool = False, seed: int = 0) -> Curve:
        """How much more harmless prompts are refused with the states in."""
        return self._curve("sufficiency", ~self.harmful, 1.0, placebo, seed)

    def necessity(self, *, placebo: bool = False, seed: int = 0) -> Curve:
        """How much less harmful prompts are refused with the states in."""
        return self._curve("necessity", self.harmful, -1.0, placebo, seed)

    def _curve(self, what: str, rows: Bool[ndarray, " row"], sign: float, placebo: bool, seed: int) -> Curve:
        moved = sign * (self.placebo if placebo else self.moved)[rows]
        groups = tuple(g for g, kept in zip(self.groups, rows, strict=True) if kept)
        drawn = weighted_mean(moved, group_weights(groups, seed=seed))
        name = f"causal_patch {what}{', placebo' if placebo else ''}"
        return Curve(name, self.layers, moved.mean(0), drawn, "nats", len(moved), what)


def patch_effects(
    read: Read,
    states: Float[Tensor, "row layer place d_model"],
    layers: Sequence[int],
    at: tuple[int, ...],
    *,
    harmful: Bool[ndarray, " row"],
    groups: Sequence[str],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> PatchEffects:
    """Patches every prompt with its twin and with a stranger, at one layer after the other.

    Args:
        read: of all rows, under edits whose rows are these.
        states: of every row, without edits, at the places.
        layers: of the second axis of ``states``.
        at: the places, counted from the end of the prompt.
        harmful: which row of each twin is the harmful one.
        groups: of every row; each holds one harmful and one harmless prompt, in which order ever.
        seed: of the strangers.
        progress: called with (layers done, layers in all).

    Raises:
        UsageError: when a group is no twin, or there are fewer than two.
    """
    partner, stranger = _partners(groups, harmful), _strangers(harmful, seed)
    before = read(())
    moved, placebo = (np.empty((len(before), len(layers))) for _ in range(2))
    for i, layer in enumerate(layers):
        for found, source in ((moved, partner), (placebo, stranger)):
            found[:, i] = read((Patch(states[torch.from_numpy(source), i], layer, at),)) - before
        progress(i + 1, len(layers))
    return PatchEffects(tuple(layers), harmful, tuple(groups), before, moved, placebo)


def _partners(groups: Sequence[str], harmful: Bool[ndarray, " row"]) -> Int[ndarray, " row"]:
    """The row of the other prompt of every row's twin."""
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    odd = next((g for g, own in rows.items() if len(own) != 2 or harmful[own].sum() != 1), None)
    if odd is not None or len(rows) < 2:
        raise UsageError(
            f"group {odd!r} is no twin of one harmful and one harmless prompt; patching needs two such twins or more."
        )
    partner = np.empty(len(groups), dtype=np.int64)
    for first, second in rows.values():
        partner[first], partner[second] = second, first
    return partner


def _strangers(harmful: Bool[ndarray, " row"], seed: int) -> Int[ndarray, " row"]:
    """Another row of the same kind for every row: one cycle through each kind, in random order."""
    rng, stranger = np.random.default_rng(seed), np.empty(len(harmful), dtype=np.int64)
    for kind in (harmful, ~harmful):
        order = rng.permutation(np.flatnonzero(kind))
        stranger[order] = np.roll(order, 1)
    return stranger
