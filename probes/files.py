"""A probe as a folder: ``probe.safetensors`` holds its numbers, ``probe.json`` what it is and how it was tested."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from interp.cache.identity import canonical_json
from interp.errors import InterpError, UsageError
from probes.probe import Probe

__all__ = ["Probe", "ProbeFileError", "load_probe", "require_room", "save_probe"]

FORMAT, VERSION = "interp probe", 1
RECORD, TENSORS = "probe.json", "probe.safetensors"
_OBJECTS = ("model", "training", "threshold", "metrics", "controls", "baselines", "excess", "cells")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "estimator": str, "layer": int, "position": str, "d_model": int, "established": bool, "verdict": str,
    "said": list, "sha256": str, **dict.fromkeys(_OBJECTS, dict),
}  # fmt: skip


class ProbeFileError(InterpError):
    """A probe folder that can not be read or trusted."""

    exit_code = 3


def require_room(folder: Path | str, *, overwrite: bool = False) -> None:
    """Checks that a probe may be written to a folder; to be asked before anything long begins.

    Raises:
        UsageError: when something is there and ``overwrite`` was not given, or it is something else than a probe.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder}: is not a folder; give another --out.")
    inside = {path.name for path in folder.iterdir()}
    if inside - {RECORD, TENSORS}:
        other = sorted(inside - {RECORD, TENSORS})[0]
        raise UsageError(f"{folder}: holds {other}, which is no part of a probe; give another --out.")
    if inside and not overwrite:
        raise UsageError(f"{folder}: a probe is there already; give another --out, or --overwrite to replace it.")


def save_probe(probe: Probe, folder: Path | str, *, overwrite: bool = False) -> Path:
    """Writes a probe; the folder appears whole or not at all.

    Args:
        probe: what to write; its digests are made anew.
        folder: where; those above it are made.
        overwrite: replace a probe that is there.

    Returns:
        The folder.

    Raises:
        UsageError: when something is there and may not be replaced.
        ProbeFileError: when it can not be written, or a number of the record is not finite.
    """
    folder = Path(folder)
    require_room(folder, overwrite=overwrite)
    data = bytes_of({name: tensor.detach().cpu().float().contiguous() for name, tensor in probe.tensors.items()})
    about = {"format": FORMAT, "version": VERSION}
    record = {**about, **probe.record, **about, "sha256": hashlib.sha256(data).hexdigest()}
    record.pop("record_sha256", None)
    try:
        record["record_sha256"] = hashlib.sha256(canonical_json(record)).hexdigest()
    except (ValueError, TypeError) as error:
        raise ProbeFileError(f"{folder}: the record of this probe is no JSON: {error}.") from error
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    try:
        _publish(folder, {TENSORS: data, RECORD: text.encode("utf-8")})
    except OSError as error:
        raise ProbeFileError(f"{folder}: could not be written: {error}; make room or give another --out.") from error
    return folder


def _publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder beside the one wanted, then gives it the name; an older one goes after that."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}-{secrets.token_hex(4)}") for _ in range(2))
    try:
        fresh.mkdir()
        for name, data in files.items():
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load_probe(folder: Path | str) -> Probe:
    """Reads a probe and checks every byte of it.

    Raises:
        ProbeFileError: when there is none, a byte was changed, or it is not what this version writes.
    """
    folder = Path(folder)
    record = _read_record(folder)
    try:
        data = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise ProbeFileError(
            f"{folder / TENSORS}: can not be read: {error.strerror}; train the probe again."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != record["sha256"]:
        raise ProbeFileError(
            f"{folder / TENSORS}: expected sha256 {record['sha256']}, found {found}. The file was changed or damaged "
            "after it was written; train the probe again."
        )
    try:
        tensors = tensors_of(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ProbeFileError(f"{folder / TENSORS}: is no safetensors file ({error}).") from error
    _require_tensors(folder / TENSORS, record["d_model"], tensors)
    return Probe(record, tensors, str(folder))


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ProbeFileError(f"{folder}: no probe here (no {RECORD}); give the folder of a trained probe.") from error
    except OSError as error:
        raise ProbeFileError(f"{path}: can not be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ProbeFileError(f"{path}: is no JSON ({error}); train the probe again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ProbeFileError(f"{path}: is not the record of a probe (no format {FORMAT!r}).")
    if record.get("version") != VERSION:
        raise ProbeFileError(f"{path}: has version {record.get('version')!r}, this one reads {VERSION}; update interp.")
    _require_fields(path, record)
    return record


def _require_fields(path: Path, record: dict[str, Any]) -> None:
    for field, kind in _FIELDS.items():
        value = record.get(field)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ProbeFileError(f"{path}: field {field!r} is {value!r:.60}; train the probe again.")
    if not isinstance(record["threshold"].get("value"), int | float):
        raise ProbeFileError(f"{path}: field 'threshold' has no value; train the probe again.")
    rest = {name: value for name, value in record.items() if name != "record_sha256"}
    try:
        found = hashlib.sha256(canonical_json(rest)).hexdigest()
    except (ValueError, RecursionError) as error:
        raise ProbeFileError(f"{path}: is no strict JSON ({error}); train the probe again.") from error
    if found != record.get("record_sha256"):
        raise ProbeFileError(
            f"{path}: expected sha256 {record.get('record_sha256')!r:.70}, found {found}. It was changed after it was "
            "written; train the probe again."
        )


def _require_tensors(path: Path, d_model: int, tensors: dict[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted: dict[str, tuple[int, ...]] = {"direction": (d_model,), "bias": ()}
    if "hidden.bias" in shapes:
        width = (*shapes["hidden.bias"], 0)[0]
        wanted = {"hidden.weight": (width, d_model), "hidden.bias": (width,), "direction": (width,), "bias": ()}
    if shapes != wanted:
        raise ProbeFileError(f"{path}: holds tensors of shapes {shapes}, but {wanted} are needed; train it again.")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ProbeFileError(f"{path}: tensor {name!r} is not of finite float32 numbers; train the probe again.")
