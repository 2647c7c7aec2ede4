"""What is computed from a run and kept beside its states: answers and readings, each with a stamp of what made it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from safetensors.numpy import load, save

from interp.cache.identity import canonical_json
from interp.cache.publish import publishing

Arrays = dict[str, Shaped[ndarray, "..."]]


def keep_json(folder: Path, name: str, stamp: dict[str, Any], value: Any) -> None:
    """Writes a JSON value as ``name``.json; an older one is replaced.

    Args:
        folder: a run folder.
        name: of the file, without ending.
        stamp: everything that decides the value, as JSON.
        value: what was computed.
    """
    record = {"stamp": stamp, "sha256": _digest(canonical_json(value)), "value": value}
    with publishing(folder / f"{name}.json") as path:
        path.write_bytes(canonical_json(record))


def kept_json(folder: Path, name: str, stamp: dict[str, Any]) -> Any | None:
    """The value kept under a name, or None when there is none with this stamp or it is damaged."""
    try:
        record = json.loads((folder / f"{name}.json").read_bytes())
        same = record["stamp"] == stamp and record["sha256"] == _digest(canonical_json(record["value"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record["value"] if same else None


def keep_arrays(folder: Path, name: str, stamp: dict[str, Any], arrays: Arrays) -> None:
    """Writes arrays as ``name``.safetensors with their stamp; see `keep_json`."""
    data = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    with publishing(folder / f"{name}.safetensors") as path:
        path.write_bytes(data)
    keep_json(folder, name, stamp, _digest(data))


def kept_arrays(folder: Path, name: str, stamp: dict[str, Any]) -> Arrays | None:
    """The arrays kept under a name, or None when there are none with this stamp or they are damaged."""
    digest = kept_json(folder, name, stamp)
    try:
        data = (folder / f"{name}.safetensors").read_bytes()
    except OSError:
        return None
    return load(data) if digest == _digest(data) else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
