"""Trained projectors as files: ``projector.safetensors``, and ``projector.json`` with what they belong to.

They go back into the ``multi_modal_projector`` of the LLaVA-class model of transformers that they were trained in.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from interp.cache.publish import make_folder, publishing
from interp.errors import ModelMismatch, UsageError
from interp.models.identity import identify_around
from interp.models.projected import PROJECTOR, projector_of

FORMAT, VERSION = "interp projector", 1
RECORD, TENSORS = "projector.json", "projector.safetensors"


def owner_of(model: Any) -> dict[str, str]:
    """What a projector belongs to: a model with another projector is the same owner."""
    return identify_around(model, PROJECTOR)


def write_projector(
    projector: nn.Module,
    folder: Path,
    *,
    owner: Mapping[str, str],
    variant: str,
    training: str,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a projector; a crash in between leaves one that is refused, never half of one.

    Args:
        projector: of the model that was trained.
        folder: where; made with those above it.
        owner: `owner_of` the model, before anything else in it was trained too.
        variant: it was trained with.
        training: digest of everything that decided the training.
        about: anything else worth keeping, as JSON.

    Returns:
        The folder.
    """
    state = projector.state_dict()
    data = bytes_of({name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()})
    record = {
        "format": FORMAT,
        "version": VERSION,
        "model": dict(owner),
        "variant": variant,
        "training": training,
        "about": dict(about or {}),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    make_folder(folder)
    with publishing(folder / TENSORS) as path:
        path.write_bytes(data)
    with publishing(folder / RECORD) as path:
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return folder


def read_projector(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_projector` wrote: the record, and the tensors in float32.

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
        folder: see `write_projector`.

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
