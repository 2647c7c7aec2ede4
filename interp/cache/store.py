"""Reading an activation cache: by layer and position, checked on first touch, never changed."""

import contextlib
import hashlib
import io
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import torch
from fsspec.implementations.local import LocalFileSystem
from jaxtyping import Float
from numpy import ndarray
from safetensors import safe_open
from torch import Tensor

from interp.axes import States
from interp.cache.identity import Identity, require_same
from interp.cache.records import parse_json, require_manifest, require_record
from interp.cache.run import MANIFEST, PROMPTS, SITE
from interp.cache.shard import check_shard, data_name
from interp.errors import CacheError, CorruptShard, UsageError
from interp.prompts.prompt import PromptSet


class ActivationCache:
    """The states of one model on one set of prompts, on disk; see `interp.axes` for what a layer is.

    Attributes:
        place: folder or URL of the run.
        identity: everything that decided the states.
        positions: names of the positions stored.
        layers: the layers stored, ascending.
        d_model: width of the residual stream.
    """

    def __init__(self, place: str, filesystem: Any, root: str) -> None:
        """Use `open`; this reads the manifest and the commit records, O(shards) small files."""
        self.place, self._files, self._root = place, filesystem, root
        self._manifest = require_manifest(self._json(MANIFEST), f"{place}/{MANIFEST}")
        self.identity: Identity = self._manifest["identity"]
        self.positions: tuple[str, ...] = tuple(self._manifest["positions"])
        self.layers: tuple[int, ...] = tuple(self.identity["capture.layers"])
        self.d_model: int = self._manifest["d_model"]
        self._rows: list[list[int]] = self._manifest["plan"]["shards"]
        self._records = [self._record(k) for k in range(len(self._rows))]
        self._checked: dict[int, tuple[int, ...] | None] = {}

    @classmethod
    def open(cls, where: Path | str, *, expect: Identity | None = None) -> "ActivationCache":
        """Opens a finished run.

        Args:
            where: the run folder, or any URL that fsspec knows.
            expect: an identity that the run must have been made with.

        Raises:
            CacheError: when there is no run or it is not finished.
            CorruptShard: when the manifest or a commit record was changed.
            ModelMismatch: when the run was made with something else than expected, naming the field.
        """
        # A path is not parsed as a URL: "a::b" is a fine name for a folder.
        local = isinstance(where, Path) or "://" not in where
        filesystem, root = (LocalFileSystem(), str(Path(where).absolute())) if local else fsspec.url_to_fs(str(where))
        if not filesystem.exists(f"{root}/{MANIFEST}"):
            raise CacheError(f"{where}: no run here (no {MANIFEST}); give the folder that `interp harvest` printed.")
        cache = cls(str(where), filesystem, root)
        if expect is not None:
            require_same(str(where), cache.identity, expect)
        return cache

    @classmethod
    def from_arrays(
        cls,
        states: Mapping[str, Tensor | ndarray],
        prompts: PromptSet,
        where: Path | str,
        *,
        name: str,
        layers: tuple[int, ...] = (),
        keep_text: bool = False,
    ) -> "ActivationCache":
        """Makes a cache of activations that were computed elsewhere.

        Args:
            states: (prompt, layer, d_model) float32 or bfloat16 per position, in the order of the prompts.
            prompts: what the rows are.
            where: the folder under which the run folder is made.
            name: the model they come from, as it should appear in reports.
            layers: the layer numbers of the second axis, ascending; 0, 1, 2... if left out.
            keep_text: store prompt texts; they may be sensitive, so by default only digests are stored.

        Raises:
            UsageError: when shapes do not agree with each other, the prompts or the layers, or for another dtype.
            NonFinite: when a state is NaN or infinite.
        """
        from interp.cache.arrays import write_arrays

        folder = write_arrays(states, prompts, Path(where), name=name, layers=layers, keep_text=keep_text)
        return cls.open(folder)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def __repr__(self) -> str:
        return (
            f"ActivationCache({self.place!r}: {len(self)} prompts, {len(self.layers)} layers, "
            f"positions {', '.join(self.positions)}, d_model {self.d_model})"
        )

    @property
    def key(self) -> str:
        """The run key."""
        return str(self._manifest["key"])

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """One row per prompt, in the order of every array; what is not known is None.

        Columns: id, text, label, category, group, split, image, text_sha256; ``text`` is None unless the run was
        harvested with keep_text.
        """
        data, expected = self._bytes(PROMPTS), self._manifest["prompts_sha256"]
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise CorruptShard(f"{self.place}/{PROMPTS}", f"sha256 {expected}", f"sha256 {found}")
        frame = pd.read_parquet(io.BytesIO(data)).astype(object)
        return frame.where(frame.notna(), None)

    @property
    def nonfinite(self) -> int:
        """How many numbers in the cache are NaN or infinite; 0 unless it was harvested to keep them."""
        return sum(record.get("nonfinite", 0) for record in self._records)

    def residuals(
        self, *, position: str, layer: int | None = None, dtype: torch.dtype = torch.float32
    ) -> States | Float[Tensor, "prompt d_model"]:
        """States at a position, in prompt order.

        Args:
            position: one of ``positions``.
            layer: one layer, which reads no other from disk; None for all stored layers.
            dtype: float32 or float64 for statistics; the stored bfloat16 has 8 bits of precision.

        Returns:
            (prompt, d_model) for one layer, (prompt, layer, d_model) for all.

        Raises:
            UsageError: for a layer or position that is not stored.
            CorruptShard: when a shard is not what was committed.
        """
        taken = slice(None) if layer is None else slice(self._layer_index(layer), self._layer_index(layer) + 1)
        width = len(self.layers) if layer is None else 1
        out = torch.empty(len(self), width, self.d_model, dtype=dtype)
        for k, rows in enumerate(self._rows):
            out[rows] = self._slice(k, position, taken).to(dtype)
        return out if layer is None else out[:, 0]

    def shards(self, *, position: str) -> Iterator[tuple[list[int], Float[Tensor, "row layer d_model"]]]:
        """Streams (prompt indices, states) shard by shard in the stored dtype, for caches larger than memory."""
        for k, rows in enumerate(self._rows):
            yield rows, self._slice(k, position, slice(None))

    def rows(self, rows: Sequence[int], *, position: str) -> Float[Tensor, "row layer d_model"]:
        """States of some prompts at a position in the stored dtype, none other read: for caches larger than memory.

        Args:
            rows: prompt indices, in any order and any number of times; at least one.
            position: one of ``positions``.

        Raises:
            UsageError, CorruptShard: as `residuals` does, and for a row that is not stored.
        """
        if odd := set(rows) - set(self._homes):
            raise UsageError(f"{self.place}: row {min(odd)} is not stored; it has rows 0 to {len(self) - 1}.")
        homes = {row: self._homes[row] for row in rows}
        found: dict[int, Tensor] = {}
        for shard in {home for home, _ in homes.values()}:
            with self._reading_shard(shard, position) as stored:
                found |= {row: stored[place : place + 1] for row, (home, place) in homes.items() if home == shard}
        return torch.cat([found[row] for row in rows])

    @cached_property
    def _homes(self) -> dict[int, tuple[int, int]]:
        """Of every prompt its shard, and the row there."""
        return {row: (k, i) for k, rows in enumerate(self._rows) for i, row in enumerate(rows)}

    def verify(self) -> list[CorruptShard]:
        """Reads every byte of the run again and returns what is wrong; an empty list when all is well.

        Raises:
            CacheError: when a commit record is gone or a file can not be read.
        """
        try:
            fresh = ActivationCache(self.place, self._files, self._root)
        except CorruptShard as fault:
            return [fault]
        checks: list[Callable[[], object]] = [lambda: fresh.prompts]
        checks += [partial(fresh._touch, k) for k in range(len(fresh._rows))]
        faults = []
        for check in checks:
            try:
                check()
            except CorruptShard as fault:
                faults.append(fault)
        return faults

    def _slice(self, shard: int, position: str, layers: slice) -> Tensor:
        with self._reading_shard(shard, position) as stored:
            return torch.as_tensor(stored[:, layers])

    @contextlib.contextmanager
    def _reading_shard(self, shard: int, position: str) -> Iterator[Any]:
        """The states of a shard at a position, of which only what is indexed is read."""
        if position not in self.positions:
            raise UsageError(f"{self.place}: position {position!r} is not stored; it has {', '.join(self.positions)}.")
        with safe_open(self._touch(shard), framework="pt") as file:
            yield file.get_slice(f"{SITE}.{position}")

    def _layer_index(self, layer: int) -> int:
        if layer not in self.layers:
            raise UsageError(f"{self.place}: layer {layer} is not stored; it has {list(self.layers)}.")
        return self.layers.index(layer)

    def _touch(self, shard: int) -> Path:
        """The local file of a shard, its digest checked unless it is the very file checked before."""
        record = self._records[shard]
        name = f"shards/{data_name(shard, record)}"
        path = self._local(name)
        # Taken before the check: a change during it is noticed at the next touch.
        seen = _fingerprint(path)
        if self._checked.get(shard, ()) != seen:
            try:
                check_shard(path, record, place=f"{self.place}/{name}")
            except CorruptShard:
                if not self._is_local:
                    path.unlink(missing_ok=True)
                raise
            self._checked[shard] = seen
        return path

    @property
    def _is_local(self) -> bool:
        return isinstance(self._files, LocalFileSystem)

    def _local(self, name: str) -> Path:
        """The file itself on a local disk; from anywhere else a copy, fetched once."""
        if self._is_local:
            return Path(self._root) / name
        copy = Path(self._fetched.name) / Path(name).name
        if not copy.exists():
            partial_copy = copy.with_name(secrets.token_hex(8))
            with self._reading(name):
                self._files.get_file(f"{self._root}/{name}", str(partial_copy))
            partial_copy.replace(copy)
        return copy

    @cached_property
    def _fetched(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="interp-")

    def _record(self, shard: int) -> dict[str, Any]:
        name = f"shards/{shard:05d}.json"
        if not self._files.exists(f"{self._root}/{name}"):
            raise CacheError(
                f"{self.place}: not finished, shard {shard} of {len(self._rows)} is missing; "
                "run the same harvest again to go on."
            )
        return require_record(self._json(name), f"{self.place}/{name}", run=self.key, shard=shard)

    def _json(self, name: str) -> dict[str, Any]:
        return parse_json(self._bytes(name), f"{self.place}/{name}")

    def _bytes(self, name: str) -> bytes:
        with self._reading(name):
            data: bytes = self._files.cat_file(f"{self._root}/{name}")
        return data

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Says in the product's own errors why a file of the run can not be read."""
        try:
            yield
        except FileNotFoundError as error:
            raise CorruptShard(f"{self.place}/{name}", "a file", "no file") from error
        except OSError as error:
            raise CacheError(f"{self.place}/{name}: could not be read: {error}") from error


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
