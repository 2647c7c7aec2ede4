"""The model's own way from a residual state to logits: final norm, head, logit scale and softcap."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.axes import TokenIds


@dataclass(frozen=True, slots=True)
class Readout:
    """Reads any residual state as if it were the last one (nostalgebraist 2020, "the logit lens").

    Attributes:
        norm: the final norm, with the output projection where a model has one; computes in float32.
        weight: (vocab, d_head) in the checkpoint's dtype, the unembedding.
        bias: (vocab,) or None.
        scale: factor on the logits, 1 for most models (Granite divides, Cohere multiplies).
        softcap: logits become ``softcap * tanh(logits / softcap)`` (Gemma 2); None for none.
    """

    norm: Callable[[Tensor], Tensor]
    weight: Float[Tensor, "vocab d_head"]
    bias: Float[Tensor, " vocab"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def vocab(self) -> int:
        """The number of vocabulary entries."""
        return self.weight.shape[0]

    @torch.no_grad()
    def normed(self, states: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_head"]:
        """Residual states behind the final norm, float32."""
        return self.norm(states.to(self.weight.device, torch.float32))

    def only(self, tokens: TokenIds) -> "Readout":
        """The readout of some vocabulary entries: entry i is the one that had the id ``tokens[i]``."""
        tokens = tokens.to(self.weight.device)
        return replace(self, weight=self.weight[tokens], bias=None if self.bias is None else self.bias[tokens])

    def logits(
        self, normed: Float[Tensor, "*n d_head"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "*n chunk"]:
        """Logits of the vocabulary entries ``start`` to ``stop`` (exclusive), in the dtype of ``normed``.

        A gradient reaches ``normed``; what `normed` returned carries none.
        """
        logits = normed @ self.weight[start:stop].to(normed.dtype).T
        if self.bias is not None:
            logits = logits + self.bias[start:stop].to(normed.dtype)
        logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
