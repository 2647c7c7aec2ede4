"""The one protocol of the product: what a model must do for the activation cache and the lens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from interp.axes import BatchStates
from interp.lens.readout import Readout
from interp.models.anatomy import Site
from interp.models.identity import ModelIdentity
from interp.models.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of a few prompts, padded on either side.

    Attributes:
        ids: (row, token) vocabulary ids; what stands at padding does not matter.
        mask: (row, token) 1 for a token, 0 for padding.
        at: (row, position) token indices into the row where states are wanted, never at padding.
        shared: how many leading tokens all rows have in common; an adapter may compute them once. Only for
            batches without padding on the left, and no index of ``at`` lies inside.
    """

    ids: Int[Tensor, "row token"]
    mask: Int[Tensor, "row token"]
    at: Int[Tensor, "row position"]
    shared: int = 0

    @property
    def position_ids(self) -> Int[Tensor, "row token"]:
        """The place of every token in its own prompt, padding not counted."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)


@runtime_checkable
class Adapter(Protocol):
    """A language model whose residual stream can be read.

    Attributes:
        identity: what the model is, by digests.
        runtime: backend, dtype, device and attention it runs with.
        tokenizer: the fast tokenizer of the model, with its chat template.
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
    n_layers: int
    d_model: int
    model: nn.Module
    sites: list[Site]
    shares: bool

    def states(self, batch: Batch, layers: Sequence[int]) -> BatchStates:
        """Residual states of ``layers`` (ascending) at the batch's positions, compute dtype, on the CPU."""
        ...

    def readout(self) -> Readout:
        """The model's own final norm and head.

        Raises:
            ModelError: when final norm, head, scale and softcap do not reproduce the model's logits.
        """
        ...
