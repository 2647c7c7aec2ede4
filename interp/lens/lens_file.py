"""A tuned lens as a folder: ``tuned_lens.safetensors`` holds its numbers, ``tuned_lens.json`` what it was fitted to."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from interp.errors import ModelMismatch, UsageError

FORMAT, VERSION = "interp tuned lens", 1
RECORD, TENSORS = "tuned_lens.json", "tuned_lens.safetensors"
_PER_LAYER = ("layers", "stages", "kl_before", "kl_after")


def write_lens(folder: Path, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Writes both files; a crash in between leaves a lens that is refused by its digest, never half of one.

    Args:
        folder: where; made with those above it.
        record: JSON of what the lens is.
        tensors: its numbers.

    Returns:
        The folder.
    """
    data = bytes_of({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    stamped = {"format": FORMAT, "version": VERSION, **record, "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(stamped, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _publish(folder / TENSORS, data)
    _publish(folder / RECORD, text.encode("utf-8"))
    return folder


def _publish(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read_lens(folder: Path, model: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_lens` wrote.

    Args:
        folder: where it lies.
        model: what the model is that it is wanted for.

    Raises:
        UsageError: when there is none, or a byte of the tensors is not as written.
        ModelMismatch: for another model, naming the field that differs.
    """
    record = _read_record(folder / RECORD)
    for field in dict.fromkeys((*record["model"], *model)):
        if record["model"].get(field) != model.get(field):
            raise ModelMismatch(folder, f"model.{field}", record["model"].get(field), model.get(field))
    try:
        data = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise UsageError(f"{folder / TENSORS}: can not be read: {error.strerror}; fit the lens again.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != record.get("sha256"):
        raise UsageError(
            f"{folder / TENSORS}: expected sha256 {record.get('sha256')}, found {found}. It was changed or damaged "
            "after it was written; fit the lens again."
        )
    try:
        tensors = tensors_of(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{folder / TENSORS}: is no safetensors file ({error}); fit the lens again.") from error
    _require_shapes(folder / TENSORS, len(record["layers"]), tensors)
    return record, tensors


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: can not be read: {error.strerror}; give the folder of a saved tuned lens."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON ({error}); fit the lens again.") from error
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise UsageError(f"{path}: is not a tuned lens of version {VERSION}; fit the lens again.")
    lists = [record.get(name) for name in _PER_LAYER]
    same = all(isinstance(found, list) and len(found) == len(lists[0] or ()) for found in lists)
    if not same or not isinstance(record.get("model"), dict) or not isinstance(record.get("rows"), list):
        raise UsageError(f"{path}: lacks what a tuned lens is ({', '.join(_PER_LAYER)}, model); fit the lens again.")
    return record


def _require_shapes(path: Path, layers: int, tensors: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width = shapes.get("biases", (0, 0))[-1]
    if shapes != {"matrices": (layers, width, width), "biases": (layers, width)}:
        raise UsageError(f"{path}: holds tensors of shapes {shapes} for {layers} layers; fit the lens again.")
    if any(tensor.dtype != torch.float32 or not tensor.isfinite().all() for tensor in tensors.values()):
        raise UsageError(f"{path}: holds numbers that are not finite float32; fit the lens again.")
