"""A cache made of activations that were computed elsewhere."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from numpy import ascontiguousarray, ndarray
from torch import Tensor

from interp.cache.identity import FORMAT, Identity
from interp.cache.plan import Plan
from interp.cache.run import Run
from interp.errors import NonFinite, UsageError
from interp.prompts.prompt import PromptSet

ROWS = 256


def write_arrays(
    states: Mapping[str, Tensor | ndarray],
    prompts: PromptSet,
    root: Path,
    *,
    name: str,
    layers: tuple[int, ...],
    keep_text: bool,
) -> Path:
    """Writes arrays as a run and returns its folder; see `ActivationCache.from_arrays`."""
    tensors = {position: _tensor(position, array) for position, array in states.items()}
    shape = _common_shape(tensors, prompts, layers)
    layers = layers or tuple(range(shape[1]))
    if list(layers) != sorted(set(layers)):
        raise UsageError(f"layers {list(layers)} must ascend.")
    _require_finite(tensors, prompts, layers)
    identity = _identity(tensors, prompts, name, layers)
    shards = tuple(tuple(range(i, min(i + ROWS, shape[0]))) for i in range(0, shape[0], ROWS))
    plan = Plan(shards, 0, tuple(0 for _ in shards))
    run = Run.start(root, identity, plan, prompts, positions=tuple(tensors), d_model=shape[2], keep_text=keep_text)
    for k, rows in enumerate(plan.shards):
        if not run.committed(k):
            run.commit(k, {p: t[list(rows)] for p, t in tensors.items()}, {"rows": len(rows)})
    return run.folder


def _tensor(position: str, array: Tensor | ndarray) -> Tensor:
    try:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(ascontiguousarray(array).copy())
    except (TypeError, ValueError) as error:
        raise UsageError(f"{position}: {error}") from error
    return tensor.detach().cpu()


def _common_shape(tensors: dict[str, Tensor], prompts: PromptSet, layers: tuple[int, ...]) -> torch.Size:
    shapes = {t.shape for t in tensors.values()}
    if len(shapes) != 1:
        raise UsageError(f"arrays must be given, and all of one shape; found {sorted(map(tuple, shapes))}.")
    shape = shapes.pop()
    if len(shape) != 3 or shape[0] != len(prompts) or (layers and len(layers) != shape[1]):
        raise UsageError(
            f"arrays of shape {tuple(shape)} are not (prompt, layer, d_model) for {len(prompts)} prompts"
            + (f" and {len(layers)} layers." if layers else ".")
        )
    for position, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            raise UsageError(f"{position}: dtype {tensor.dtype} is not float32 or bfloat16; convert it first.")
    return shape


def _require_finite(tensors: dict[str, Tensor], prompts: PromptSet, layers: tuple[int, ...]) -> None:
    for position, tensor in tensors.items():
        bad = ~tensor.isfinite()
        if bad.any():
            row, layer, _ = bad.nonzero()[0].tolist()
            prompt = prompts.prompts[row].id
            raise NonFinite(f"{position}: prompt {prompt!r}, layer {layers[layer]}: the state is NaN or infinite.")


def _identity(tensors: dict[str, Tensor], prompts: PromptSet, name: str, layers: tuple[int, ...]) -> Identity:
    digest = hashlib.sha256()
    for position, tensor in sorted(tensors.items()):
        data: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{position}|{tensor.dtype}|{xxhash.xxh3_128_hexdigest(memoryview(data))}\n".encode())
    return {
        "format": FORMAT,
        "model.name": name,
        "arrays": digest.hexdigest(),
        "capture.layers": list(layers),
        "prompts": prompts.digest,
    }
