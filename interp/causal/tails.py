"""The last tokens of prompts, read again and again under edits, while what stands before them is read once.

Patching layer after layer at t_post changes nothing of the tokens before it. With their keys and values kept, a read
costs the patched tokens instead of whole prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.causal.editing import editing
from interp.causal.edits import Edit
from interp.causal.effects import states_at, token_ids
from interp.models.adapter import Adapter
from interp.models.anatomy import Watcher, accepts, first_tensor, output_tensor, watching
from interp.models.continuation import keeps_plainly, with_own_layers
from interp.models.padding import left_padded
from interp.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Tails:
    """Prompts of which all but the last tokens are read.

    Attributes:
        adapter: any backend.
        prompts: a row each.
        texts: their vocabulary ids.
        width: how many last tokens are read anew each time.
        kept: keys and values of what stands before; None where the model keeps none that a row can be resumed from (a
            recurrent state), or a prompt is a picture too: whole prompts are read then.
        mask: (row, token) of what was kept, padded on the left.
    """

    adapter: Adapter
    prompts: tuple[Prompt, ...]
    texts: tuple[tuple[int, ...], ...]
    width: int
    kept: Any
    mask: Int[Tensor, "row token"]

    @classmethod
    @torch.no_grad()
    def of(cls, adapter: Adapter, prompts: Sequence[Prompt], width: int) -> "Tails":
        """Reads what stands before the tails.

        Args:
            adapter: any backend.
            prompts: at least one; all are read at once.
            width: of the tails in tokens, at least 1.
        """
        texts = tuple(token_ids(adapter, prompts))
        nothing = torch.zeros(len(texts), 0, dtype=torch.long)
        if min(map(len, texts)) <= width or any(p.image is not None for p in prompts):
            return cls(adapter, tuple(prompts), texts, width, None, nothing)
        ids, mask = left_padded([text[:-width] for text in texts], pad=0)
        output = _forward(adapter, ids, mask)
        kept = getattr(output, "past_key_values", None)
        return cls(adapter, tuple(prompts), texts, width, kept if keeps_plainly(kept) else None, mask)

    def last(self, edits: Sequence[Edit] = ()) -> Float[Tensor, "row d_model"]:
        """The state of the last layer at the last token; see `states`."""
        return self.states([self.adapter.n_layers], edits)[:, 0]

    @torch.no_grad()
    def states(self, layers: Sequence[int], edits: Sequence[Edit] = ()) -> Float[Tensor, "row layer d_model"]:
        """States at the last token, in the model's dtype, on the CPU.

        Args:
            layers: ascending, 0 to L.
            edits: at places inside the tails; rows of patches are in the order of the prompts.

        Raises:
            UsageError: for an edit before the tails, and as `editing`.
        """
        if self.kept is None:
            with editing(self.adapter, edits, self.texts):
                return states_at(self.adapter, self.prompts, layers, (-1,))[:, :, 0]
        ids = torch.tensor([text[-self.width :] for text in self.texts])
        seen: dict[int, Tensor] = {}
        watchers = [(self.adapter.sites[i].module, self._watcher(i, seen)) for i in layers]
        with editing(self.adapter, edits, self.texts, tail=self.width), watching(watchers):
            _forward(self.adapter, ids, torch.cat([self.mask, torch.ones_like(ids)], 1), with_own_layers(self.kept))
        return torch.stack([seen[i] for i in layers], 1)

    def _watcher(self, layer: int, seen: dict[int, Tensor]) -> Watcher:
        """Takes the state that passes through a layer's site at the last token."""
        before = self.adapter.sites[layer].before

        def take(args: Any, kwargs: Any, output: Any) -> None:
            seen[layer] = (first_tensor(args, kwargs) if before else output_tensor(output))[:, -1].cpu()

        return take


def _forward(
    adapter: Adapter,
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row seen"],
    kept: Any = None,
) -> Any:
    """Runs the decoder over tokens, behind kept ones; ``mask`` is of both."""
    decoder: Any = adapter.model.get_decoder()  # type: ignore[operator]
    device = next(adapter.model.parameters()).device
    options: dict[str, Any] = {"past_key_values": kept, "use_cache": True}
    if accepts(decoder, "position_ids"):
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options["position_ids"] = places.to(device)
    return decoder(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
