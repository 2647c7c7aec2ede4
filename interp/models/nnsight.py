"""The nnsight backend: the same states through `TransformersModel`.

Importing nnsight changes the process (it patches tensors and objects), so only this module does, and only on
demand.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from interp.axes import BatchStates
from interp.lens.readout import Readout
from interp.models.adapter import Batch
from interp.models.anatomy import dissect, first_tensor, output_tensor, readout_of, sites_of
from interp.models.identity import ModelIdentity
from interp.models.pictures import refuse_pictures, tokenizer_of
from interp.models.runtime import Runtime


class NNsightAdapter:
    """Reads a model through an nnsight trace; see `interp.models.adapter.Adapter`.

    It computes shared tokens anew for every row and runs the vocabulary head: slower than the default, and there
    to agree with it.
    """

    def __init__(self, model: nn.Module, processor: Any, identity: ModelIdentity, runtime: Runtime) -> None:
        from nnsight import TransformersModel

        self.processor, self.tokenizer = processor, tokenizer_of(processor)
        self.identity, self.runtime = identity, runtime
        self.model, self.anatomy = model, dissect(model)
        self.n_layers, self.d_model = len(self.anatomy.blocks), self.anatomy.text_config.hidden_size
        self.device = next(model.parameters()).device
        # nnsight changes the padding side of the tokenizer it is given.
        own = copy.deepcopy(self.tokenizer)
        self.traced = TransformersModel(model, task="text-generation", tokenizer=own, dispatch=True)
        self.sites, self.shares = sites_of(self.anatomy.blocks), False
        # nnsight sees what a module returns before any hook of the module does, so a state is read where it arrives:
        # at the next block, behind the last one at the final norm, or in what the decoder returns where it has none.
        after = self.anatomy.tail[0] if self.anatomy.tail else self.anatomy.decoder
        names = {module: name for name, module in model.named_modules()}
        self._readers = [f"model.{names[module]}" for module in (*self.anatomy.blocks, after)]

    def readout(self) -> Readout:
        """The model's own final norm and head."""
        return readout_of(self.model, self.anatomy)

    @torch.no_grad()
    def states(self, batch: Batch, layers: Sequence[int]) -> BatchStates:
        """Residual states of ``layers`` (ascending) at the batch's positions, on the CPU, see `Batch.read`."""
        refuse_pictures(batch.pictures, "nnsight")
        inputs = {
            "input_ids": batch.ids.to(self.device),
            "attention_mask": batch.mask.to(self.device),
            "position_ids": batch.position_ids.to(self.device),
        }
        readers = [self._readers[i] for i in layers]
        with self.traced.trace(inputs) as tracer:
            cache = tracer.cache(modules=readers, include_inputs=True)
        batch = replace(batch, shared=0)
        return torch.stack([batch.read(self._state(cache, i)) for i in layers], dim=1)

    def _state(self, cache: Any, layer: int) -> torch.Tensor:
        entry = cache[self._readers[layer]]
        if layer == self.n_layers and not self.anatomy.tail:
            return output_tensor(entry.output).cpu()
        args, kwargs = entry.inputs
        return first_tensor(args, kwargs).cpu()
