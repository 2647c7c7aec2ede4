"""Patches of whole classes of tokens, of which prompts have different numbers: picture, caption, instruction.

States of n tokens are laid on m others in one of two ways:

- ``nearest``: in order, each of the m gets that of the n whose middle lies nearest when both rows are drawn to the same
  length (a tie goes to the later one). Equal numbers are laid one on one.
- ``mean``: each of the m gets the mean of the n, taken in float32. It says nothing of order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.causal.edits import PlaceStates, check_numbers, check_places
from interp.errors import UsageError

LAYINGS = ("nearest", "mean")
TokenStates = Float[Tensor, "_ d_model"]


def laid(states: TokenStates, n: int, how: str = "nearest") -> TokenStates:
    """States of some tokens laid on ``n`` others, see the head of this module.

    Args:
        states: (token, d_model) in order, at least one.
        n: how many tokens they are to lie on, at least 1.
        how: one of `LAYINGS`.

    Returns:
        (n, d_model); of ``mean`` in float32 or wider.

    Raises:
        UsageError: for no states, no tokens, or another way.
    """
    if how not in LAYINGS or not len(states) or n < 1:
        raise UsageError(
            f"{len(states)} states on {n} tokens by {how!r}: give some of each, and {' or '.join(LAYINGS)}."
        )
    if how == "mean":
        mean: Tensor = states.to(torch.promote_types(states.dtype, torch.float32)).mean(0)
        return mean.expand(n, -1)
    return states[(2 * torch.arange(n) + 1) * len(states) // (2 * n)]


@dataclass(frozen=True, slots=True, eq=False)
class ClassPatch:
    """Replaces the states at all tokens of a class by others: x <- y, token by token.

    Attributes:
        values: (token, d_model) for each prompt, as many as it has tokens of the class (`laid`).
        layer: where, 0 to L.
        at: the class, or t_inst or t_post.

    Raises:
        UsageError: for values that are no numbers or of different widths, none, and for something that is no class.
    """

    values: tuple[TokenStates, ...]
    layer: int
    at: str

    def __post_init__(self) -> None:
        check_places(self)
        if not self.values or len({value.shape[-1] for value in self.values}) > 1:
            raise UsageError("ClassPatch: give values of one width, some for each prompt.")
        for value in self.values:
            check_numbers(self, value)

    @property
    def width(self) -> int:
        """d_model of the states it was made for."""
        return int(self.values[0].shape[-1])

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The one layer it acts at."""
        return (self.layer,)

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:
        """The values of one prompt, in the dtype of the states."""
        (row,) = rows.tolist()
        written: Tensor = self.values[row][None].to(states)
        return written

    def displacement(self, states: Sequence[TokenStates]) -> tuple[Float[Tensor, " _"], ...]:
        """How far it moves every token of every prompt: Euclidean norms, float64, in the units of the states.

        Args:
            states: (token, d_model) of each prompt before the patch, see `interp.causal.effects.states_of`.
        """
        pairs = zip(self.values, states, strict=True)
        return tuple((value.double().cpu() - own.double().cpu()).norm(dim=-1) for value, own in pairs)

    def shuffled(self, seed: int, how: str = "nearest") -> "ClassPatch":
        """The patch with the values of another prompt for every prompt, laid on as many tokens.

        Raises:
            UsageError: for a patch of fewer than two prompts.
        """
        from interp.causal.placebos import another_for_each

        order = another_for_each(len(self.values), seed).tolist()
        values = [laid(self.values[k], len(own), how) for k, own in zip(order, self.values, strict=True)]
        return ClassPatch(tuple(values), self.layer, self.at)

    def placebo(self, seed: int, states: Sequence[TokenStates]) -> "ClassPatch":
        """A patch that moves every token as far as this one does, each in a random direction of its own.

        Args:
            seed: of the draw.
            states: as of `displacement`.
        """
        generator = torch.Generator().manual_seed(seed)
        moved = []
        for size, own in zip(self.displacement(states), states, strict=True):
            drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64)
            away = own.double().cpu() + size[:, None] * drawn / drawn.norm(dim=-1, keepdim=True)
            moved.append(away.float())
        return ClassPatch(tuple(moved), self.layer, self.at)
