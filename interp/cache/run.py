"""The folder of a run while it is being written: manifest, prompts, shards, quarantine."""

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from interp.cache.identity import Identity, canonical_json, require_same, run_key, surroundings
from interp.cache.plan import Plan
from interp.cache.publish import make_folder, publishing, sweep
from interp.cache.records import read_json, require_manifest, require_record, write_json
from interp.cache.shard import check_shard, data_name, write_shard
from interp.errors import CacheError, CorruptShard, UsageError
from interp.prompts.prompt import PromptSet

SITE = "resid_post"
MANIFEST = "manifest.json"
PROMPTS = "prompts.parquet"


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder that is open for writing.

    Attributes:
        folder: ``<root>/<run key>``.
        key: the run key.
        plan: its batches.
    """

    folder: Path
    key: str
    plan: Plan

    @classmethod
    def start(
        cls,
        root: Path,
        identity: Identity,
        plan: Plan,
        prompts: PromptSet,
        *,
        positions: tuple[str, ...],
        d_model: int,
        keep_text: bool,
        repair: bool = False,
    ) -> "Run":
        """Makes the run folder, or goes on with the one that is there.

        Args:
            root: the folder that the run folder is in.
            identity: everything that decides the states.
            plan: the batches.
            prompts: what the rows are.
            positions: the names of the positions stored.
            d_model: width of the residual stream.
            keep_text: store the texts of the prompts.
            repair: set a damaged manifest or prompt table aside and write it again.

        Raises:
            ModelMismatch: when the manifest there has another identity or plan.
            UsageError: when texts are asked for and the run was started without them.
            CorruptShard: when the manifest there was changed.
        """
        run = cls(root / run_key(identity), run_key(identity), plan)
        make_folder(run.folder / "shards")
        sweep(run.folder)
        sweep(run.folder / "shards")
        described = {
            "shards": [list(s) for s in plan.shards],
            "shared": plan.shared,
            "tokens": list(plan.tokens),
            "ids_sha256": plan.ids_sha256,
        }
        if repair:
            keep_text = run._set_aside_head() or keep_text
        if not (run.folder / MANIFEST).exists():
            table = _prompt_table(prompts, keep_text=keep_text)
            with publishing(run.folder / PROMPTS, needed=len(table)) as temporary:
                temporary.write_bytes(table)
            manifest = {
                "key": run.key,
                "identity": identity,
                "plan": described,
                "positions": list(positions),
                "d_model": d_model,
                "keep_text": keep_text,
                "prompts_sha256": hashlib.sha256(table).hexdigest(),
                "recorded": surroundings(),
            }
            write_json(run.folder / MANIFEST, manifest)
        run._require(identity, described, keep_text=keep_text)
        return run

    def _require(self, identity: Identity, plan: dict[str, Any], *, keep_text: bool) -> None:
        """Compares the manifest, which another worker may have written just before this one."""
        manifest = read_manifest(self.folder)
        require_same(self.folder, manifest["identity"], identity)
        require_same(self.folder, {"token ids": manifest["plan"]["ids_sha256"]}, {"token ids": plan["ids_sha256"]})
        made, now = (hashlib.sha256(canonical_json(p)).hexdigest() for p in (manifest["plan"], plan))
        require_same(self.folder, {"batch plan": made}, {"batch plan": now})
        if keep_text and not manifest["keep_text"]:
            raise UsageError(
                f"{self.folder}: was started without the texts of the prompts, and they can not be added later; "
                "go on without --keep-text, or choose another --out."
            )

    def record_path(self, shard: int) -> Path:
        """Where the commit record of a shard is."""
        return self.folder / "shards" / f"{shard:05d}.json"

    def committed(self, shard: int) -> bool:
        """Whether a shard exists, that is, has a commit record."""
        return self.record_path(shard).exists()

    def commit(self, shard: int, states: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Writes the states of a shard, one (row, layer, d_model) tensor per position, and its commit record."""
        tensors = {f"{SITE}.{position}": tensor.contiguous() for position, tensor in states.items()}
        write_shard(self.record_path(shard), tensors, {**record, "run": self.key, "shard": shard})

    def quarantine(self, shard: int) -> CorruptShard | None:
        """Sets a damaged shard aside, so that it is computed again; returns what was wrong, None when nothing."""
        path = self.record_path(shard)
        try:
            record = require_record(read_json(path), path, run=self.key, shard=shard)
            check_shard(path.with_name(data_name(shard, record)), record)
        except CorruptShard as fault:
            # The record first: data without a record does not exist, so a crash between the two does no harm.
            self._set_aside(path, *path.parent.glob(f"{path.stem}-*.safetensors"))
            return fault
        return None

    def _set_aside_head(self) -> bool:
        """Sets manifest and prompt table aside when one is damaged; returns whether texts were kept in them."""
        manifest, prompts = self.folder / MANIFEST, self.folder / PROMPTS
        if not manifest.exists():
            return False
        kept = False
        try:
            known = read_manifest(self.folder)
            kept = bool(known["keep_text"])
            found = hashlib.sha256(prompts.read_bytes()).hexdigest() if prompts.is_file() else "no file"
            if (known["key"], known["prompts_sha256"]) != (self.key, found):
                raise CorruptShard(prompts, known["prompts_sha256"], found)
        except CorruptShard:
            self._set_aside(manifest, prompts)
        return kept

    def _set_aside(self, *damaged: Path) -> None:
        aside = self.folder / "quarantine"
        make_folder(aside)
        for path in damaged:
            with contextlib.suppress(FileNotFoundError):
                path.replace(_unused(aside / path.name))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        CorruptShard: when it was changed or is missing.
    """
    return require_manifest(read_json(folder / MANIFEST), folder / MANIFEST)


def _unused(path: Path) -> Path:
    """A name in the same folder that no file has yet."""
    for n in range(10_000):
        candidate = path.with_name(f"{path.stem}-{n}{path.suffix}")
        if not candidate.exists():
            return candidate
    raise CacheError(f"{path.parent}: holds 10,000 damaged copies of {path.name}; look at the disk, then empty it.")


def _prompt_table(prompts: PromptSet, *, keep_text: bool) -> bytes:
    """The parquet bytes of the prompts; texts can be sensitive, so by default only their digests are kept."""
    frame = prompts.frame()
    frame["text_sha256"] = [hashlib.sha256(t.encode()).hexdigest() for t in frame["text"]]
    if not keep_text:
        frame["text"] = pd.Series([None] * len(frame), dtype=object)
    buffer = io.BytesIO()
    frame.astype("string").to_parquet(buffer, index=False)
    return buffer.getvalue()
