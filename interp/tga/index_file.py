"""An index as a folder: ``index.faiss``, ``texts.parquet`` and ``index.json``, which has the digests of both."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import pandas as pd

from interp.cache.identity import canonical_json
from interp.cache.publish import make_folder, publishing
from interp.errors import CacheError, ModelMismatch
from interp.packages import sha256
from interp.stats import Estimate
from interp.tga.corpus import Corpus
from interp.tga.retrieval import Design, TextIndex

FORMAT, VERSION = "interp text index", 1
RECORD, SEARCHED, TEXTS = "index.json", "index.faiss", "texts.parquet"
AGAIN = "build the index again"


def write_index(index: TextIndex, folder: Path) -> Path:
    """Writes an index; a crash in between leaves one that is refused by its digests, never half of one.

    Raises:
        DiskFull: when there is no room.
    """
    make_folder(folder)
    with publishing(folder / SEARCHED) as path:
        faiss.write_index(index.searched, str(path))
    with publishing(folder / TEXTS) as path:
        pd.DataFrame({"text": index.corpus.texts, "origin": index.corpus.origins}).to_parquet(path, index=False)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "space": index.space,
        "digest": index.digest,
        "vectors": index.vectors_digest,
        "corpus": index.corpus.digest,
        "design": asdict(index.design),
        "files": {name: sha256(folder / name) for name in (SEARCHED, TEXTS)},
    }
    with publishing(folder / RECORD) as path:
        path.write_bytes(canonical_json(record))
    return folder


def read_index(folder: Path, *, space: str) -> TextIndex:
    """Reads what `write_index` wrote.

    Args:
        folder: where it lies.
        space: digest of the encoder that the queries will come from.

    Raises:
        CacheError: when there is no index, it is of another version, or a byte of it is not as written.
        ModelMismatch: for another encoder than it was made with.
    """
    record = _record(folder / RECORD)
    if record["space"] != space:
        raise ModelMismatch(folder, "encoder", record["space"], space)
    for name, expected in record["files"].items():
        _require_sha256(folder / name, expected)
    frame = pd.read_parquet(folder / TEXTS)
    corpus = Corpus(tuple(frame["text"]), tuple(frame["origin"]))
    design = dict(record["design"])
    design["recall"] = Estimate(**design["recall"]) if design["recall"] else None
    index = TextIndex(
        corpus,
        faiss.read_index(str(folder / SEARCHED)),
        space=space,
        design=Design(**design),
        vectors_digest=record["vectors"],
    )
    if index.digest != record["digest"]:
        raise _changed(folder / RECORD, record["digest"], index.digest)
    return index


def _require_sha256(path: Path, expected: str) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise CacheError(f"{path}: can not be read ({error.strerror}); {AGAIN}.") from error
    if found != expected:
        raise _changed(path, expected, found)


def _changed(path: Path, expected: str, found: str) -> CacheError:
    return CacheError(f"{path}: expected digest {expected}, found {found}; it was changed or damaged, {AGAIN}.")


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise CacheError(f"{path}: can not be read ({error.strerror}); give the folder of a saved index.") from error
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{path}: is no JSON ({error}); {AGAIN}.") from error
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise CacheError(f"{path}: is not a text index of version {VERSION}; {AGAIN}.")
    missing = {"space", "digest", "vectors", "design", "files"} - record.keys()
    if missing or set(record["files"]) != {SEARCHED, TEXTS}:
        raise CacheError(f"{path}: lacks what a text index is; {AGAIN}.")
    return record
