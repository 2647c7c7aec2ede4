"""Trained projectors as files: ``projector.safetensors``, and ``projector.json`` with what they belong to.

They go back into the ``multi_modal_projector`` of the LLaVA-class model of transformers that they were trained in.
`interp.tga.projector` writes them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from torch import Tensor

from interp.errors import ModelMismatch, UsageError
from interp.models.identity import identify_around
from interp.models.projected import PROJECTOR, projector_of

FORMAT, VERSION = "interp projector", 1
RECORD, TENSORS = "projector.json", "projector.safetensors"


def owner_of(model: Any) -> dict[str, str]:
    """What a projector belongs to: a model with another projector is the same owner."""
    return identify_around(model, PROJECTOR)


def read_projector(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `interp.tga.projector.write_projector` wrote: the record, and the tensors in float32.

    Raises:
        UsageError: when there is none, or a byte of it is not as written.
    """
    record = _record(folder / RECORD)
    try:
        data = (folder / TENSORS).read_bytes()
        tensors = tensors_of(data)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{folder / TENSORS}: can not be read ({error}); train the projector again.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != record["sha256"]:
        raise UsageError(
            f"{folder / TENSORS}: expected sha256 {record['sha256']}, found {found}. It was changed or damaged after "
            "it was written; train the projector again."
        )
    return record, tensors


def load_projector(model: Any, folder: Path) -> dict[str, Any]:
    """Puts a trained projector into the model that it belongs to, in the model's dtype.

    Args:
        model: changed in place.
        folder: see `read_projector`.

    Returns:
        The record of the projector.

    Raises:
        UsageError: when it can not be read.
        ModelMismatch: for another model or another shape, naming the field that differs.
    """
    record, tensors = read_projector(folder)
    owner = owner_of(model)
    for field in owner:
        if record["model"].get(field) != owner[field]:
            raise ModelMismatch(folder, f"model.{field}", record["model"].get(field), owner[field])
    module = projector_of(model)
    state = module.state_dict()
    for name in dict.fromkeys((*tensors, *state)):
        stored, own = (list(found[name].shape) if name in found else None for found in (tensors, state))
        if stored != own:
            raise ModelMismatch(folder, f"shape of {name}", stored, own)
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
    return record


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: can not be read ({error.strerror}); give the folder of a projector.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON ({error}); train the projector again.") from error
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise UsageError(f"{path}: is not a projector of version {VERSION}; train the projector again.")
    if not isinstance(record.get("model"), dict) or not {"variant", "training", "sha256"} <= record.keys():
        raise UsageError(f"{path}: lacks what a projector is (model, variant, training, sha256); train it again.")
    return record
