"""What can be written into the residual stream: directions taken out, vectors added, states of other prompts put in.

Layers are those of `interp.axes`: layer 0 is what block 0 is given, layer i what block i returns. Places (``at``) are
counted from the end of the prompt, so -1 is t_post; or they are a class of tokens, such as ``image``, however many each
prompt has of it (`interp.models.encoding`); None means every token, those generated included.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UsageError
from interp.models.encoding import GROUPS

Places = tuple[int, ...]
PlaceStates = Float[Tensor, "row place d_model"]


@runtime_checkable
class Edit(Protocol):
    """Anything that can be written into a forward pass.

    Attributes:
        at: places from the end of the prompt, or a class of tokens; None for every token.
        width: d_model of the states it was made for.
    """

    @property
    def at(self) -> Places | str | None: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def at_layers(self, n_layers: int) -> tuple[int, ...]:
        """The layers it acts at in a model of ``n_layers`` blocks."""
        ...

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:
        """The states as they are to be, in their dtype.

        Args:
            states: those at its places, or at all tokens; at a class of tokens those of one prompt.
            rows: which prompt each of them belongs to; without places they are numbered as they come.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """Takes a direction out of the states: x <- x - (x . r - m) r, for r of length 1.

    Arditi et al. 2024, eq. 4, have m = 0. With m the mean of x . r over prompts of the other kind, states of that kind
    stay nearly as they were, where m = 0 would move them too (affine editing; Marshall et al. 2024, arXiv 2411.09003).

    They project the direction out of everything that is written into the stream: the embedding and the output of every
    attention and MLP. Here it is taken out of the stream itself, of what every block is given and what it returns. So
    whatever was read between blocks agrees, but an MLP reads what the attention of its own block wrote along r.

    Attributes:
        direction: (d_model) any length but 0; only where it points matters.
        layers: where, 0 to L; None for all, as in the paper.
        at: places from the end of the prompt, or a class of tokens; None for every token, as in the paper.
        toward: m, what is left along the direction, in the units of the states.

    Raises:
        UsageError: for a direction of length 0 or that is no number, and for places that are not negative.
    """

    direction: Float[Tensor, " d_model"]
    layers: tuple[int, ...] | None = None
    at: Places | str | None = None
    toward: float = 0.0

    def __post_init__(self) -> None:
        check_places(self)
        check_numbers(self, self.direction)
        if not self.direction.norm() > 0:
            raise UsageError("Ablation: a direction of length 0 points nowhere; give another.")

    @property
    def width(self) -> int:
        """d_model of the states it was made for."""
        return self.direction.shape[-1]

    def at_layers(self, n_layers: int) -> tuple[int, ...]:
        """The layers it acts at in a model of ``n_layers`` blocks."""
        return tuple(range(n_layers + 1)) if self.layers is None else self.layers

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:  # noqa: ARG002
        """The states without the direction; computed in float32 or wider, so a 16-bit state keeps a rounding of it."""
        wide = _wide(states)
        unit = self.direction.to(wide)
        unit = unit / unit.norm()
        return _as(states, wide - (wide @ unit - self.toward)[..., None] * unit)


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """Adds a vector to the states: x <- x + v (activation addition; Turner et al. 2023, arXiv 2308.10248).

    Arditi et al. 2024, eq. 3, add the difference of means at every token, which is the default here.

    Attributes:
        vector: (d_model) in the units of the states.
        layer: where, 0 to L.
        at: places from the end of the prompt, or a class of tokens; None for every token.

    Raises:
        UsageError: for a vector that is no number, and for places that are not negative.
    """

    vector: Float[Tensor, " d_model"]
    layer: int
    at: Places | str | None = None

    def __post_init__(self) -> None:
        check_places(self)
        check_numbers(self, self.vector)

    @property
    def width(self) -> int:
        """d_model of the states it was made for."""
        return self.vector.shape[-1]

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The one layer it acts at."""
        return (self.layer,)

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:  # noqa: ARG002
        """The states with the vector added."""
        wide = _wide(states)
        return _as(states, wide + self.vector.to(wide))


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Replaces the states at some places by others, such as those of the twin: x <- y (activation patching).

    Attributes:
        values: (row, place, d_model) one row per prompt, in the order of the prompts.
        layer: where, 0 to L.
        at: one place from the end of the prompt for each of ``values``.

    Raises:
        UsageError: for values that are no numbers, not one per place, or places that are not negative or twice there.
    """

    values: PlaceStates
    layer: int
    at: Places

    def __post_init__(self) -> None:
        check_places(self)
        _check_values(self)

    @property
    def width(self) -> int:
        """d_model of the states it was made for."""
        return self.values.shape[-1]

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The one layer it acts at."""
        return (self.layer,)

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:
        """The values of these rows, in the dtype of the states."""
        return self.values[rows.to(self.values.device)].to(states)


@dataclass(frozen=True, slots=True, eq=False)
class SubspacePatch:
    """Replaces what the states have in a subspace, or only what they have outside it.

    With Q an orthonormal basis and P = Q^T Q: x <- x + P (y - x), or x <- x + (1 - P) (y - x) for the complement. Show
    both: a patch of a subspace can act through a dormant path that the model never uses, and then the complement does
    not undo what it claims (Makelov et al. 2023, arXiv 2311.17030).

    Attributes:
        values: (row, place, d_model) as of `Patch`.
        basis: (k, d_model) vectors that span the subspace, independent, of any lengths and angles.
        layer: where, 0 to L.
        at: one place from the end of the prompt for each of ``values``.
        complement: whether the rest is replaced and the subspace kept.

    Raises:
        UsageError: as `Patch`, and for vectors that are not independent.
    """

    values: PlaceStates
    basis: Float[Tensor, "k d_model"]
    layer: int
    at: Places
    complement: bool = False

    def __post_init__(self) -> None:
        check_places(self)
        _check_values(self)
        check_numbers(self, self.basis)
        rank = int(torch.linalg.matrix_rank(self.basis.double()))
        if rank < len(self.basis) or not len(self.basis):
            raise UsageError(f"SubspacePatch: {len(self.basis)} vectors of rank {rank}; give independent ones.")

    @property
    def width(self) -> int:
        """d_model of the states it was made for."""
        return self.values.shape[-1]

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The one layer it acts at."""
        return (self.layer,)

    def applied(self, states: PlaceStates, rows: Int[Tensor, " row"]) -> PlaceStates:
        """The states with their part in the subspace, or outside it, replaced."""
        wide = _wide(states)
        basis = torch.linalg.qr(self.basis.double().T).Q.T.to(wide)
        change = self.values[rows.to(self.values.device)].to(wide) - wide
        inside = (change @ basis.T) @ basis
        return _as(states, wide + (change - inside if self.complement else inside))


def displacement(edit: Edit, states: PlaceStates) -> Float[Tensor, "row place"]:
    """How far an edit moves states: the Euclidean norm of the change, float64, in the units of the states.

    Args:
        edit: for an `Ablation` this is the norm it removes, |x . r|; for an `Addition` the norm of its vector.
        states: (row, place, d_model) states before the edit; for a patch one row and place for each of its values.
    """
    wide = states.double()
    size: Tensor = (edit.applied(wide, torch.arange(len(wide))) - wide).norm(dim=-1)
    return size


def _wide(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _as(states: Tensor, wide: Tensor) -> Tensor:
    return wide.to(states.dtype)


def check_numbers(edit: Any, vectors: Tensor) -> None:
    """Raises UsageError for vectors that are no numbers."""
    if not vectors.isfinite().all():
        raise UsageError(f"{type(edit).__name__}: holds NaN or infinity; states of the model must be finite.")


def check_places(edit: Any) -> None:
    """Raises UsageError for places that mean nothing."""
    at = edit.at
    if isinstance(at, str):
        if at not in GROUPS:
            raise UsageError(
                f"{type(edit).__name__}: at = {at!r} is no class of tokens; choose of {', '.join(GROUPS)}."
            )
        return
    if at is not None and (not at or max(at) >= 0 or len(set(at)) < len(at)):
        raise UsageError(
            f"{type(edit).__name__}: at = {at}; give places from the end of the prompt, all negative (-1 is t_post), "
            "each once."
        )


def _check_values(edit: Any) -> None:
    check_numbers(edit, edit.values)
    if edit.values.shape[1] != len(edit.at):
        raise UsageError(
            f"{type(edit).__name__}: values for {edit.values.shape[1]} places, but at = {edit.at}; give one per place."
        )
