"""The one protocol of the product: what a model must do for the activation cache and the lens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.axes import BatchStates
from interp.lens.readout import Readout
from interp.models.anatomy import Site
from interp.models.identity import ModelIdentity
from interp.models.pictures import Picture
from interp.models.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of a few prompts, padded on either side.

    Attributes:
        ids: (row, token) vocabulary ids; what stands at padding does not matter.
        mask: (row, token) 1 for a token, 0 for padding.
        at: (row, position) token indices into the row where states are wanted, never at padding.
        shared: how many leading tokens all rows have in common; an adapter may compute them once. Only for
            batches without padding on the left or pictures, and no index that is read lies inside.
        means: token indices over which a position is the mean of states, by its column in ``at``; -1 fills up.
        pictures: what the rows show, None for nothing; empty when no row shows anything.
    """

    ids: Int[Tensor, "row token"]
    mask: Int[Tensor, "row token"]
    at: Int[Tensor, "row position"]
    shared: int = 0
    means: Mapping[int, Int[Tensor, "row _"]] = field(default_factory=dict)
    pictures: tuple[Picture | None, ...] = ()

    @property
    def position_ids(self) -> Int[Tensor, "row token"]:
        """The place of every token in its own prompt, padding not counted."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)

    def of_rows(self, rows: slice | Sequence[int]) -> "Batch":
        """Some of the rows, as wide as the whole."""
        index = rows if isinstance(rows, slice) else torch.tensor(rows, dtype=torch.long)
        if not self.pictures:
            pictures: tuple[Picture | None, ...] = ()
        else:
            pictures = self.pictures[rows] if isinstance(rows, slice) else tuple(self.pictures[r] for r in rows)
        means = {column: indices[index] for column, indices in self.means.items()}
        return Batch(self.ids[index], self.mask[index], self.at[index], self.shared, means, pictures)

    def read(self, states: Float[Tensor, "row token d_model"]) -> Float[Tensor, "row position d_model"]:
        """The states at the positions, those behind ``shared`` given.

        In the dtype of the states; float32 where any position is a mean, which is taken in float32.
        """
        rows = torch.arange(len(self.ids), device=states.device)[:, None]
        found = states[rows, self.at.to(states.device) - self.shared]
        if not self.means:
            return found
        found = found.float()
        for column, indices in self.means.items():
            there = (indices >= 0).to(states.device)
            each = states[rows, (indices - self.shared).clamp(min=0).to(states.device)].float()
            # A state of another token may be infinite, and that times 0 is no number.
            found[:, column] = each.where(there[..., None], 0.0).sum(1) / there.sum(1, keepdim=True)
        return found


@runtime_checkable
class Adapter(Protocol):
    """A language model whose residual stream can be read.

    Attributes:
        identity: what the model is, by digests.
        runtime: backend, dtype, device and attention it runs with.
        tokenizer: the fast tokenizer of the model, with its chat template.
        processor: what reads prompts for it: the processor of a vision-language model, else the tokenizer.
        n_layers: the number of blocks L; states exist for layers 0 to L.
        d_model: the width of the residual stream.
        model: the causal language model of transformers that every forward of the adapter runs.
        sites: where the states of layers 0 to L pass through that model, in order.
        shares: whether `states` may keep what it computed of shared tokens, and use what it kept. Whoever writes
            into the forward switches it off meanwhile.
    """

    identity: ModelIdentity
    runtime: Runtime
    tokenizer: Any
    processor: Any
    n_layers: int
    d_model: int
    model: nn.Module
    sites: list[Site]
    shares: bool

    def states(self, batch: Batch, layers: Sequence[int]) -> BatchStates:
        """Residual states of ``layers`` (ascending) at the batch's positions, on the CPU, see `Batch.read`.

        Raises:
            ModelError: when a row shows a picture and this backend or model reads none.
        """
        ...

    def readout(self) -> Readout:
        """The model's own final norm and head.

        Raises:
            ModelError: when final norm, head, scale and softcap do not reproduce the model's logits.
        """
        ...
