"""Writes trained projectors; `interp.models.projector_file` reads them and puts them back into their model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as bytes_of
from torch import nn

from interp.cache.publish import make_folder, publishing
from interp.models.projector_file import FORMAT, RECORD, TENSORS, VERSION


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
