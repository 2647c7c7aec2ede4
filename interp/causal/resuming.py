"""Forwards that begin in the middle: at a layer, at the last tokens of prompts that were read once.

What a patch of one layer changes lies above that layer and behind the first token it writes to. With the keys and
values of all else kept, only that is run: a patch of t_post near the top costs a few thousandths of a whole forward.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.causal.ascent import replaced_forwards
from interp.causal.edits import Patch
from interp.causal.effects import encoded_prompts, log_odds
from interp.models.adapter import Adapter
from interp.models.anatomy import watching
from interp.models.continuation import Kept, read, with_own_layers
from interp.models.family_likelihood import openings_mass
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt

TailStates = Float[Tensor, "row place d_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Resumable:
    """Prompts that were read, from which forwards can begin again.

    Attributes:
        adapter: the model.
        kept: the prompts with their keys and values, padded on the left.
        tuples: whether its blocks return their states inside a tuple.
    """

    adapter: Adapter
    kept: Kept
    tuples: bool

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        prompts: Sequence[Prompt],
        states: Float[Tensor, "row layer place d_model"],
        layers: Sequence[int],
    ) -> "Resumable | None":
        """Reads prompts once, in one batch.

        Args:
            adapter: any backend that reads them.
            prompts: all with a picture, or all without.
            states: of their last tokens, at ``layers``; with them it is tried whether forwards that begin in the
                middle end as whole ones do.
            layers: of ``states``, ascending.

        Returns:
            None for a model that can not be resumed: one that keeps something else than plain keys and values, places
            its tokens by more than their order, lets tokens see those behind them, or ends elsewhere when tried.
        """
        texts = encoded_prompts(adapter, prompts)
        tuples: list[bool] = []
        watcher = (adapter.sites[1].module, lambda *call: tuples.append(not isinstance(call[-1], Tensor)))
        with watching([watcher]):
            kept = read(adapter.model, [t.ids for t in texts], [t.picture for t in texts])
        if not isinstance(kept, Kept) or not kept.plain or kept.following.ndim != 2:
            return None
        found = cls(adapter, kept, tuples[-1])
        near = torch.finfo(states.dtype).eps ** 0.5
        for i in (0, len(layers) - 1):
            again = found.under(Patch(states[:, i], layers[i], tuple(range(-states.shape[2], 0))))
            if not (again.next_log_probs.exp() - kept.next_log_probs.exp()).abs().max() <= near:
                return None
        return found

    @torch.no_grad()
    def under(self, patch: Patch) -> Kept:
        """The prompts as read under a patch of all their last tokens, as far back as it reaches."""
        # States that were averaged are wider than the model's: written into a whole forward they are rounded too.
        values = patch.values.to(self.kept.next_log_probs.device, self.kept.cache.layers[0].keys.dtype)
        width, lower = values.shape[1], self.kept.cache.layers[: patch.layer]
        cache = _before(self.kept.cache, width)
        with _beginning(self.adapter, patch.layer, (values,) if self.tuples else values):
            found = self.kept.read_on(cache, width)
        # Below the layer everything is as it was.
        cache.layers[: patch.layer] = [copy.copy(layer) for layer in lower]
        return found

    def refusal_log_odds(self, patch: Patch, family: RefusalFamily, *, batch_size: int = 64) -> Float[Tensor, " row"]:
        """As `interp.causal.refusal_log_odds` under the patch, to rounding."""
        mass = openings_mass(self.under(patch), self.adapter.tokenizer, [family], batch_size=batch_size)
        return log_odds(mass.found[:, 0])


def _before(cache: Any, width: int) -> Any:
    """The keys and values of all but the last tokens, as a cache of its own."""
    shorter = with_own_layers(cache)
    for layer in shorter.layers:
        layer.keys, layer.values = layer.keys[..., :-width, :], layer.values[..., :-width, :]
    return shorter


@contextmanager
def _beginning(adapter: Adapter, layer: int, states: Any) -> Iterator[None]:
    """Runs no block up to a layer: each returns the layer's states instead; no trace of it outlives the context."""
    blocks = [site.module for site in adapter.sites[1 : layer + 1]]
    first = adapter.sites[0].module
    given = states[0] if isinstance(states, tuple) else states

    def instead(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    if blocks:
        with replaced_forwards(blocks, [lambda *_, **__: states] * len(blocks)):
            yield
        return
    handle = first.register_forward_pre_hook(instead, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()
