"""The JSON files of a run, manifest and commit records: written once, each with a digest of itself."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from interp.cache.identity import FORMAT, canonical_json, run_key
from interp.cache.publish import publishing
from interp.errors import CacheError, CorruptShard


def write_json(path: Path, value: dict[str, Any]) -> bool:
    """Publishes a JSON object with a digest of itself; False when there is a file already, which then stays."""
    payload = canonical_json({**value, "sha256": hashlib.sha256(canonical_json(value)).hexdigest()})
    try:
        with publishing(path, needed=len(payload), once=True) as temporary:
            temporary.write_bytes(payload)
    except FileExistsError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        CorruptShard: when any byte is not what was written, or the file is gone.
        CacheError: when it can not be read.
    """
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise CorruptShard(path, "a file", "no file") from error
    except OSError as error:
        raise CacheError(f"{path}: could not be read: {error}") from error


def parse_json(data: bytes, path: Path | str) -> dict[str, Any]:
    """Reads the bytes of such a file; ``path`` is for the message.

    Raises:
        CorruptShard: when any byte is not what was written.
    """
    try:
        value = json.loads(data)
        expected = value.pop("sha256")
        found = hashlib.sha256(canonical_json(value)).hexdigest()
        intact = canonical_json({**value, "sha256": expected}) == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptShard(path, "a JSON object with its digest", f"{type(error).__name__}") from error
    if expected != found or not intact:
        raise CorruptShard(path, f"sha256 {expected}", f"sha256 {found}" if intact else "other bytes")
    return value  # type: ignore[no-any-return]


def require_manifest(manifest: dict[str, Any], path: Path | str) -> dict[str, Any]:
    """The manifest itself, when it is one that this version can read.

    Raises:
        CacheError: when a newer version of this package wrote it.
        CorruptShard: when it is no manifest, or its key is not that of its identity.
    """
    identity = manifest.get("identity", {})
    if identity.get("format", FORMAT) > FORMAT:
        raise CacheError(f"{path}: cache format {identity['format']}, this version reads {FORMAT}; update interp.")
    if manifest.get("key") != run_key(identity):
        raise CorruptShard(path, f"the manifest of run {run_key(identity)}", f"run {manifest.get('key')}")
    return manifest


def require_record(record: dict[str, Any], path: Path | str, *, run: str, shard: int) -> dict[str, Any]:
    """The commit record itself, when it is of this run and shard.

    Raises:
        CorruptShard: when it is of another, or no commit record.
    """
    if (record.get("run"), record.get("shard")) != (run, shard):
        found = f"run {record.get('run')} shard {record.get('shard')}"
        raise CorruptShard(path, f"run {run} shard {shard}", found)
    # The digest becomes part of a file name, and a run folder may come from anyone.
    if not re.fullmatch("[0-9a-f]{64}", str(record.get("data_sha256"))):
        raise CorruptShard(path, "the digest of a shard", repr(record.get("data_sha256")))
    return record
