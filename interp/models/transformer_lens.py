"""The TransformerLens backend: the same states through `TransformerBridge`.

Importing transformer_lens changes the process (logging, warnings), so only this module does, and only on demand.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.axes import BatchStates
from interp.errors import ModelError
from interp.lens.readout import Readout
from interp.models.adapter import Batch
from interp.models.anatomy import Anatomy, Site, dissect, output_tensor, readout_of, watching
from interp.models.identity import ModelIdentity
from interp.models.pictures import refuse_pictures, tokenizer_of
from interp.models.runtime import Runtime


class TransformerLensAdapter:
    """Reads a model through TransformerLens 4 hook points; see `interp.models.adapter.Adapter`.

    It computes shared tokens anew for every row and runs the vocabulary head: slower than the default, and there
    to agree with it.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        identity: ModelIdentity,
        runtime: Runtime,
        *,
        folder: Path | str,
    ) -> None:
        self.processor, self.tokenizer = processor, tokenizer_of(processor)
        self.identity, self.runtime = identity, runtime
        self.device = next(model.parameters()).device
        anatomy = dissect(model)
        self.n_layers, self.d_model = len(anatomy.blocks), anatomy.text_config.hidden_size
        # The bridge computes attention the plain way whatever the model is set to; other kernels round otherwise,
        # in bf16 up to some percent of the last states.
        model.set_attn_implementation("eager")
        # It rewires the modules of the model it is given, so these two are taken before.
        self._readout = readout_of(model, anatomy)
        expected = _last_state(model, anatomy, self._trial())
        try:
            self.bridge = _boot(model, self.tokenizer, str(folder))
        except (ValueError, KeyError, NotImplementedError) as error:
            raise ModelError(
                f"{folder}: TransformerLens can not read this model ({str(error)[:200]}); use --backend hooks."
            ) from error
        self._agree(expected, folder)
        self.model: nn.Module = self.bridge.original_model
        # Its hook points, not its blocks: those are read inside the block, before a hook on the block itself.
        blocks = self.bridge.blocks
        self.sites = [Site(point, before=False) for point in (blocks[0].hook_in, *(b.hook_out for b in blocks))]
        self.shares = False

    def readout(self) -> Readout:
        """The model's own final norm and head."""
        return self._readout

    @torch.no_grad()
    def states(self, batch: Batch, layers: Sequence[int]) -> BatchStates:
        """Residual states of ``layers`` (ascending) at the batch's positions, on the CPU, see `Batch.read`."""
        refuse_pictures(batch.pictures, "transformer_lens")
        names = [f"blocks.{i - 1}.hook_out" if i else "blocks.0.hook_in" for i in layers]
        _, cache = self.bridge.run_with_cache(
            batch.ids.to(self.device),
            attention_mask=batch.mask.to(self.device),
            position_ids=batch.position_ids.to(self.device),
            names_filter=names,
        )
        batch = replace(batch, shared=0)
        return torch.stack([batch.read(cache[name].cpu()) for name in names], dim=1)

    def _trial(self) -> Batch:
        ids = torch.arange(32)[None] % self._readout.vocab
        return Batch(ids, torch.ones_like(ids), ids)

    def _agree(self, expected: Tensor, folder: Path | str) -> None:
        """Refuses a model that the bridge computes otherwise than transformers does (4.3: Falcon with ALiBi)."""
        found = self.states(self._trial(), [self.n_layers])[0, 0].float()
        gap = ((found - expected).norm() / expected.norm()).item()
        # Both are the same operations, so they agree to the bit where the order of the sums is the same.
        allowed = max(1e-4, 4 * torch.finfo(next(self.bridge.parameters()).dtype).eps)
        if not gap <= allowed:
            raise ModelError(
                f"{folder}: TransformerLens computes other states than transformers for this model (relative "
                f"difference {gap:.2g}, allowed {allowed:.2g}); use --backend hooks."
            )


def _boot(model: nn.Module, tokenizer: Any, folder: str) -> Any:
    """The bridge around a model; it gets a tokenizer of its own, for it gives that one new special tokens."""
    from transformer_lens.model_bridge import TransformerBridge

    own = copy.deepcopy(tokenizer)
    own.init_kwargs.setdefault("name_or_path", folder)  # the bridge reads it, and not every tokenizer has it
    first = next(model.parameters())
    return TransformerBridge.boot_transformers(
        folder, hf_model=model, tokenizer=own, device=str(first.device), dtype=first.dtype
    )


@torch.no_grad()
def _last_state(model: Any, anatomy: Anatomy, batch: Batch) -> Tensor:
    """The state after the last block, (token, d_model) in float32 on the CPU, of an untouched model."""
    seen: list[Tensor] = []
    with watching([(anatomy.blocks[-1], lambda *call: seen.append(output_tensor(call[-1])))]):
        model(input_ids=batch.ids.to(next(model.parameters()).device), use_cache=False)
    return seen[0][0].float().cpu()
