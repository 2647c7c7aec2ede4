"""The states of a shard, and the commit record without which they do not exist.

The data of shard 7 is ``00007-<digest>.safetensors`` and its commit record ``00007.json``. The name of the data says
what is in it, so two writers that disagree can not touch each other's bytes; the record is what decides, and only
the first one is published.
"""

import hashlib
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from interp.cache.publish import publishing
from interp.cache.records import read_json, write_json
from interp.errors import CacheError, CorruptShard


def data_name(shard: int, record: dict[str, Any]) -> str:
    """The file name of a shard's states."""
    return f"{shard:05d}-{record['data_sha256'][:16]}.safetensors"


def write_shard(record_path: Path, tensors: dict[str, Tensor], described: dict[str, Any]) -> None:
    """Publishes the tensors of a shard, then its commit record; without the record the shard does not exist.

    Args:
        record_path: ``.../shards/00007.json``; the data goes beside it.
        tensors: named tensors, contiguous.
        described: what the commit record says beside data_sha256 and bytes; ``shard`` is its number.

    Raises:
        CacheError: when another worker has committed this shard with different bytes.
        DiskFull: when the disk is full.
    """
    # Serialised in memory: the digest is then of what was computed, not of what a disk gave back, and safetensors'
    # own writer would leave temporary files of its own when killed.
    data = save(tensors)
    record = {**described, "data_sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path = record_path.with_name(data_name(described["shard"], record))
    if not record_path.exists():
        with publishing(path, needed=len(data)) as temporary:
            temporary.write_bytes(data)
        if write_json(record_path, record):
            _remove_others(path, record_path)
            return
    committed = read_json(record_path)["data_sha256"]
    if committed != record["data_sha256"]:
        path.unlink(missing_ok=True)
        raise CacheError(
            f"{path}: two workers computed this shard differently (committed {committed}, now "
            f"{record['data_sha256']}): the machine or its libraries do not give the same result twice. "
            "Run one worker, or one kind of machine."
        )


def check_shard(path: Path, record: dict[str, Any], *, place: str | None = None) -> None:
    """Compares a shard with its commit record, byte for byte; ``place`` is how the message calls it.

    Raises:
        CorruptShard: when it is missing, has another size or another digest.
        CacheError: when it can not be read.
    """
    name = place or path
    try:
        if not path.is_file():
            raise CorruptShard(name, "a shard, as its commit record says", "no file")
        size = path.stat().st_size
        if size != record["bytes"]:
            raise CorruptShard(name, f"{record['bytes']} bytes", f"{size} bytes")
        found = sha256_file(path)
    except OSError as error:
        raise CacheError(f"{name}: could not be read: {error}") from error
    if found != record["data_sha256"]:
        raise CorruptShard(name, f"sha256 {record['data_sha256']}", f"sha256 {found}")


def sha256_file(path: Path) -> str:
    """The sha256 hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_others(path: Path, record_path: Path) -> None:
    """Removes what a crashed worker with another result left of this shard, now that it is committed."""
    for other in record_path.parent.glob(f"{record_path.stem}-*.safetensors"):
        if other != path:
            other.unlink(missing_ok=True)
