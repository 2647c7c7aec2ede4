"""The default backend: forward hooks on the blocks of a Hugging Face model."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.axes import BatchStates
from interp.errors import ModelError
from interp.lens.readout import Readout
from interp.models.adapter import Batch
from interp.models.anatomy import (
    StopForward,
    accepts,
    dissect,
    first_tensor,
    output_tensor,
    readout_of,
    sites_of,
    watching,
)
from interp.models.identity import ModelIdentity, identify_module
from interp.models.pictures import PictureReader, picture_inputs, require_same_image_token, showing, tokenizer_of
from interp.models.runtime import Runtime


class HooksAdapter:
    """Reads a Hugging Face causal language model with forward hooks; see `interp.models.adapter.Adapter`.

    Three things make it faster than a plain hooked forward: the vocabulary head never runs, nothing above the
    highest layer runs, and the tokens that all rows share are computed once (their keys and values are kept).
    Rows with pictures run through the whole of a vision-language model but its head, all others through its decoder.

    Args:
        model: of transformers.
        processor: its tokenizer, or the processor of a vision-language model.
        identity: what it is.
        runtime: how it is run.
    """

    def __init__(self, model: Any, processor: Any, identity: ModelIdentity, runtime: Runtime) -> None:
        self.model, self.processor, self.tokenizer = model.eval(), processor, tokenizer_of(processor)
        self.identity, self.runtime = identity, runtime
        self.anatomy = dissect(model)
        self.n_layers = len(self.anatomy.blocks)
        self.d_model = self.anatomy.text_config.hidden_size
        self.sites, self.shares = sites_of(self.anatomy.blocks), True
        self._prefix: tuple[tuple[int, ...], Any] = ((), None)
        if self.tokenizer is not processor:
            require_same_image_token(PictureReader(processor), model.config.to_dict())

    @classmethod
    def of_module(cls, model: nn.Module, tokenizer: Any, *, name: str = "local") -> "HooksAdapter":
        """Wraps a model that is already in memory, such as one made in a notebook."""
        return cls(model, tokenizer, identify_module(model, tokenizer, name=name), Runtime.of_module(model))

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def readout(self) -> Readout:
        """The model's own final norm and head."""
        return readout_of(self.model, self.anatomy)

    @torch.no_grad()
    def states(self, batch: Batch, layers: Sequence[int]) -> BatchStates:
        """Residual states of ``layers`` (ascending) at the batch's positions, on the CPU, see `Batch.read`."""
        showing_some = [row for row, picture in enumerate(batch.pictures) if picture is not None]
        if showing_some and len(showing_some) < len(batch.ids):
            others = sorted(set(range(len(batch.ids))) - set(showing_some))
            parts = [self.states(batch.of_rows(rows), layers) for rows in (showing_some, others)]
            return torch.cat(parts)[torch.tensor([*showing_some, *others]).argsort()]
        # The shared tokens run before the watchers are in place, so that every layer fires once.
        prefix = self._prefix_cache(batch) if batch.shared and self.shares and not batch.pictures else None
        if prefix is None:
            batch = replace(batch, shared=0)
        taken: dict[int, Tensor] = {}

        def take(layer: int, state: Tensor) -> None:
            if layer in taken:
                raise ModelError(f"layer {layer} ran twice in one forward; this model can not be read by hooks.")
            taken[layer] = batch.read(state).cpu()
            if layer == layers[-1]:
                raise StopForward

        # Blocks that look at a picture beside the text leave a text without one as it is.
        beside = [] if any(batch.pictures) else getattr(self.anatomy.text_config, "cross_attention_layers", None) or []
        with watching(self._watchers(layers, take, beside)), suppress(StopForward):
            self._forward(batch, prefix)
        missing = [layer for layer in layers if layer not in taken]
        if missing:
            raise ModelError(f"layers {missing} did not run in the forward; this model can not be read by hooks.")
        return torch.stack([taken[layer] for layer in layers], dim=1)

    def _watchers(self, layers: Sequence[int], take: Any, passed_over: Sequence[int]) -> list[tuple[nn.Module, Any]]:
        """Layer 0 is what the first block was given, layer i what block i returned, or the one before it did."""
        blocks, watchers = self.anatomy.blocks, []
        for layer in layers:
            last = max((i for i in range(layer + 1) if i - 1 not in passed_over), default=0)
            if last == 0:
                watchers.append((blocks[0], lambda *call, i=layer: take(i, first_tensor(*call[:2]))))
            else:
                watchers.append((blocks[last - 1], lambda *call, i=layer: take(i, output_tensor(call[-1]))))
        return watchers

    def _forward(self, batch: Batch, prefix: Any) -> None:
        runs = self.model.base_model if any(batch.pictures) else self.anatomy.decoder
        shared, device = batch.shared, self.device
        places = {"position_ids": batch.position_ids[:, shared:].to(device)}
        inputs = {
            "input_ids": batch.ids[:, shared:].to(device),
            "attention_mask": batch.mask.to(device),
            **(places if accepts(runs, "position_ids") else {}),
            **picture_inputs(self.model, batch.pictures, batch.ids, batch.mask),
        }
        with showing(batch.pictures):
            runs(**inputs, past_key_values=prefix, use_cache=prefix is not None)

    def _prefix_cache(self, batch: Batch) -> Any:
        """What the model keeps of the shared tokens, computed once at batch size 1 and repeated for every row.

        None for models without attention, which do not take up a state in the middle of several rows.
        """
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        ids = tuple(batch.ids[0, : batch.shared].tolist())
        if self._prefix[0] != ids:
            cache = DynamicCache(config=self.model.config)
            self.anatomy.decoder(
                input_ids=torch.tensor([ids], device=self.device), past_key_values=cache, use_cache=True
            )
            self._prefix = (ids, cache)
        if not any(isinstance(layer, DynamicLayer) for layer in self._prefix[1].layers):
            return None
        repeated = copy.deepcopy(self._prefix[1])
        repeated.reorder_cache(torch.zeros(len(batch.ids), dtype=torch.long, device=self.device))
        return repeated
