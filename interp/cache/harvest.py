"""Filling an activation cache: plan once, then one forward pass and one immutable shard per batch."""

import hashlib
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from interp.cache.batches import batch_states, make_batch
from interp.cache.identity import Identity, make_identity, require_same
from interp.cache.plan import Capture, Plan, make_plan
from interp.cache.run import Run, read_manifest
from interp.errors import CacheError, DiskFull, Interrupted, NonFinite, UsageError
from interp.models.adapter import Adapter, Batch
from interp.models.encoding import Encoded, Encoder
from interp.prompts.prompt import PromptSet

Progress = Callable[[int, int], None]
STORAGE_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Harvest:
    """A harvest that is planned but not run: its identity, its batches and its size are known.

    Attributes:
        adapter: the model.
        prompts: what it reads.
        identity: everything that decides the states.
        capture: what is kept, resolved.
        encoded: the prompts as token ids with positions.
        plan: the batches.
    """

    adapter: Adapter
    prompts: PromptSet
    identity: Identity
    capture: Capture
    encoded: tuple[Encoded, ...]
    plan: Plan

    @property
    def positions(self) -> tuple[str, ...]:
        """The names of the positions, with all_post written out."""
        return tuple(self.encoded[0].at)

    @property
    def position_tokens(self) -> dict[str, str]:
        """The token at every position where it is the same for all prompts, else an empty string."""
        found = {p: {e.ids[e.at[p]] for e in self.encoded} for p in self.positions}
        return {p: self.adapter.tokenizer.decode(list(ids)) if len(ids) == 1 else "" for p, ids in found.items()}

    @property
    def bytes(self) -> int:
        """Size of the states on disk, in bytes."""
        size = STORAGE_DTYPES[self.capture.storage].itemsize
        states = len(self.prompts) * len(self.capture.layers) * len(self.positions)
        return states * self.adapter.d_model * size

    @property
    def tokens(self) -> int:
        """How many tokens run through the model, padding counted."""
        return sum(self.plan.tokens)

    def batch(self, shard: int) -> Batch:
        """The token ids of a shard, padded on the right, and where its states are read."""
        return make_batch([self.encoded[i] for i in self.plan.shards[shard]], self.plan.shared)


def plan_harvest(adapter: Adapter, prompts: PromptSet, capture: Capture | None = None) -> Harvest:
    """Encodes the prompts and plans the batches; nothing is computed or written yet.

    Raises:
        UsageError: for positions, layers or limits that mean nothing for this model, or pictures that it can not read.
        ImageError: for a picture that can not be read.
        ModelError: for prompts that this model's template or context can not take.
    """
    capture = (capture or Capture()).resolve(n_layers=adapter.n_layers, compute_dtype=adapter.runtime.dtype)
    encoded = Encoder(adapter.processor).encode(prompts, capture.positions)
    plan = make_plan(
        [e.ids for e in encoded],
        [e.first_read for e in encoded],
        token_budget=capture.token_budget,
        max_rows=capture.max_rows,
        # The tokens of two pictures are the same and their states are not.
        share_prefix=capture.share_prefix and all(e.picture is None for e in encoded),
    )
    identity = make_identity(adapter.identity, adapter.runtime, prompts, capture)
    return Harvest(adapter, prompts, identity, capture, tuple(encoded), plan)


def run_harvest(
    harvest: Harvest,
    root: Path | str,
    *,
    part: tuple[int, int] = (0, 1),
    keep_text: bool = False,
    on_nonfinite: Literal["error", "keep"] = "error",
    strict_batch: bool = False,
    repair: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Computes every shard that is not committed yet; a second run goes on where the first stopped.

    Args:
        harvest: what `plan_harvest` returned.
        root: the folder under which the run folder is made.
        part: (i, n): do the shards k with k % n == i, so that n processes or machines can share the work.
        keep_text: store prompt texts; they may be sensitive, so by default only digests are stored.
        on_nonfinite: "error" stops at NaN or infinity, "keep" stores it and counts it in the commit record.
        strict_batch: fail instead of splitting a batch that does not fit into memory.
        repair: check committed shards first; set damaged ones aside and compute them again.
        progress: called with (tokens done, tokens in all) after every shard.
        should_stop: asked before every shard; True raises Interrupted with all finished shards kept.

    Returns:
        The run folder; open it with `ActivationCache.open` once all parts are done.

    Raises:
        DiskFull, NonFinite, Interrupted, ModelError: as their names say; finished shards are kept.
    """
    index, of = part
    if not 0 <= index < of:
        raise UsageError(f"part {index}/{of}: the first number counts from 0 and is below the second.")
    if on_nonfinite not in ("error", "keep"):
        raise UsageError(f"on_nonfinite {on_nonfinite!r} is not one of error, keep.")
    run = Run.start(
        Path(root),
        harvest.identity,
        harvest.plan,
        harvest.prompts,
        positions=harvest.positions,
        d_model=harvest.adapter.d_model,
        keep_text=keep_text,
        repair=repair,
    )
    mine = range(index, len(harvest.plan.shards), of)
    _require_room(run, [k for k in mine if not run.committed(k)], harvest)
    done, total = 0, sum(harvest.plan.tokens[k] for k in mine)
    for k in mine:
        if should_stop():
            raise Interrupted(f"stopped; finished shards are kept in {run.folder}, the same command goes on.")
        if repair and run.committed(k):
            run.quarantine(k)
        if not run.committed(k):
            _compute(harvest, run, k, on_nonfinite=on_nonfinite, strict=strict_batch)
        done += harvest.plan.tokens[k]
        if progress:
            progress(done, total)
    return run.folder


def expected_seconds(harvest: Harvest) -> float:
    """How long the harvest will take here, from timing a few prompts of the longest batch."""
    batch = harvest.batch(len(harvest.plan.shards) - 1).of_rows(slice(4))
    layers = harvest.capture.layers
    # The first call warms up, computes the shared prefix and finds how many rows fit.
    _, rows = batch_states(harvest.adapter, batch, layers)
    batch = batch.of_rows(slice(rows))
    started = time.perf_counter()
    harvest.adapter.states(batch, layers)
    tokens = len(batch.ids) * (batch.ids.shape[1] - batch.shared)
    return (time.perf_counter() - started) / tokens * harvest.tokens


def harvest_into(run: Path | str, harvest: Harvest, **options: Any) -> Path:
    """Goes on with one particular run folder, and refuses when it was made with anything else.

    Raises:
        ModelMismatch: naming the first field that differs.
        CacheError: when the folder was renamed.
    """
    folder = Path(run).absolute()
    if not (folder / "manifest.json").exists():
        raise UsageError(f"{folder}: no run here to go on with (no manifest.json).")
    manifest = read_manifest(folder)
    require_same(folder, manifest["identity"], harvest.identity)
    if folder.name != manifest["key"]:
        raise CacheError(
            f"{folder}: this run was made as {manifest['key']}, and only a folder of that name can be written to; "
            "name it so again. Reading works under any name."
        )
    return run_harvest(harvest, folder.parent, **options)


def _compute(harvest: Harvest, run: Run, shard: int, *, on_nonfinite: str, strict: bool) -> None:
    started = time.perf_counter()
    layers = harvest.capture.layers
    states, micro_batch = batch_states(harvest.adapter, harvest.batch(shard), layers, strict=strict)
    states = states.to(STORAGE_DTYPES[harvest.capture.storage])
    ids = [harvest.prompts.prompts[i].id for i in harvest.plan.shards[shard]]
    record = {
        "rows": len(ids),
        "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "micro_batch": micro_batch,
        "nonfinite": _count_nonfinite(states, ids, layers, on_nonfinite),
        "seconds": round(time.perf_counter() - started, 3),
        "host": platform.node(),
    }
    run.commit(shard, {p: states[:, :, i] for i, p in enumerate(harvest.positions)}, record)


def _count_nonfinite(states: Tensor, ids: list[str], layers: Sequence[int], on_nonfinite: str) -> int:
    bad = ~states.isfinite()
    if bad.any() and on_nonfinite == "error":
        row, layer, *_ = bad.nonzero()[0].tolist()
        raise NonFinite(
            f"prompt {ids[row]!r}, layer {layers[layer]}: the state is NaN or infinite. A wider dtype "
            "(--dtype fp32) usually helps; --on-nonfinite keep stores it as it is."
        )
    return int(bad.sum())


def _require_room(run: Run, missing: Sequence[int], harvest: Harvest) -> None:
    """Room for what this part of the run has yet to write, not for what is there already."""
    rows = sum(len(harvest.plan.shards[k]) for k in missing)
    needed = harvest.bytes // len(harvest.prompts) * rows
    free = shutil.disk_usage(run.folder).free
    if free < needed:
        raise DiskFull(run.folder, needed, free)
