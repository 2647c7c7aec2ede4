"""Checkpoints of a training: everything that the next step depends on, in safetensors, parquet and JSON.

A checkpoint is a folder that appears at once or not at all, so one that is there is whole; its digests tell whether it
was changed since.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.cache.identity import canonical_json, require_same
from interp.cache.publish import make_folder, publishing
from interp.errors import TrainingError
from interp.packages import sha256

RECORD, TENSORS = "state.json", "state.safetensors"
KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training between two steps.

    Attributes:
        step: how many updates were made.
        tensors: parameters, optimizer, running means and random state, by name.
        numbers: everything else, as JSON.
        tables: what was measured so far, by name.
    """

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def write_checkpoint(checkpoint: Checkpoint, folder: Path, identity: Mapping[str, Any]) -> Path:
    """Writes a checkpoint below ``folder`` and removes all but the newest two.

    Args:
        checkpoint: what to write.
        folder: of all checkpoints of the training.
        identity: everything that decides the training.

    Raises:
        DiskFull: when there is no room; older checkpoints are kept.
    """
    made, place = folder / ".making", folder / f"{checkpoint.step:07d}"
    shutil.rmtree(made, ignore_errors=True)
    make_folder(made)
    with publishing(made / TENSORS) as path:
        save_file({name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}, path)
    for name, table in checkpoint.tables.items():
        with publishing(made / f"{name}.parquet") as path:
            table.to_parquet(path, index=False)
    files = {path.name: sha256(path) for path in sorted(made.iterdir())}
    record = {"step": checkpoint.step, "identity": dict(identity), "numbers": checkpoint.numbers, "files": files}
    with publishing(made / RECORD) as path:
        path.write_bytes(canonical_json(record))
    shutil.rmtree(place, ignore_errors=True)
    made.rename(place)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old)
    return place


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The newest checkpoint of a training, or None when there is none.

    Raises:
        ModelMismatch: when it is of another training, naming the field that differs.
        TrainingError: when a byte of it is not as written.
    """
    found = _all(folder)
    if not found:
        return None
    place = found[-1]
    try:
        record = json.loads((place / RECORD).read_bytes())
        changed = [name for name, digest in record["files"].items() if sha256(place / name) != digest]
        if changed:
            raise ValueError(f"{changed[0]} is not what was written")
        require_same(place, record["identity"], dict(identity))
        tables = {Path(n).stem: pd.read_parquet(place / n) for n in record["files"] if n.endswith(".parquet")}
        return Checkpoint(record["step"], load_file(place / TENSORS), record["numbers"], tables)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{place}: this checkpoint is damaged ({error}); delete it to go on from an older one, or from the start."
        ) from error


def pack_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The moments and step counts of an optimizer of one group, by parameter name."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{k}.{names[i]}": v for i, moments in state.items() for k, v in moments.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `pack_optimizer` gave."""
    kinds = sorted({name.split(".")[1] for name in tensors if name.startswith("optimizer.")})
    state = {
        i: {kind: tensors[f"optimizer.{kind}.{name}"].clone() for kind in kinds}
        for i, name in enumerate(names)
        if kinds and f"optimizer.{kinds[0]}.{name}" in tensors
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _all(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
