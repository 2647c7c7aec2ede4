import dataclasses
import json

import pytest

from interp.cache import ActivationCache, run_harvest
from interp.cache.run import Run
from interp.errors import CorruptShard, ModelMismatch, UsageError
from tests.cache.samples import names, planned, shard_digests


def start(harvest, root, *, keep_text=False, repair=False, plan=None):
    return Run.start(
        root,
        harvest.identity,
        plan or harvest.plan,
        harvest.prompts,
        positions=harvest.positions,
        d_model=harvest.adapter.d_model,
        keep_text=keep_text,
        repair=repair,
    )


def test_a_run_begins_with_its_manifest_and_prompts(fake, tmp_path):
    harvest = planned(fake)
    run = start(harvest, tmp_path)
    assert names(run.folder) == {"manifest.json", "prompts.parquet"}
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert run.folder.name == run.key == manifest["key"]
    assert manifest["identity"] == harvest.identity
    assert manifest["plan"]["shards"] == [list(s) for s in harvest.plan.shards]
    assert {"host", "torch", "python"} <= manifest["recorded"].keys()


def test_a_run_that_is_there_is_gone_on_with_and_not_edited(fake, tmp_path):
    harvest = planned(fake)
    before = {p: p.stat() for p in start(harvest, tmp_path).folder.glob("*.*")}
    assert {p: p.stat() for p in start(harvest, tmp_path).folder.glob("*.*")} == before


def test_another_plan_of_the_same_identity_is_refused(fake, tmp_path):
    """As it would come of a newer version that cuts batches differently."""
    harvest = planned(fake)
    start(harvest, tmp_path)
    other = dataclasses.replace(harvest.plan, shards=harvest.plan.shards[::-1], tokens=harvest.plan.tokens[::-1])
    with pytest.raises(ModelMismatch) as error:
        start(harvest, tmp_path, plan=other)
    assert error.value.field == "batch plan"
    assert len(str(error.value)) < 500


def test_other_token_ids_of_the_same_identity_are_refused(fake, tmp_path):
    """A chat template that writes the date makes other ids of the same prompts on another day."""
    today = planned(fake)
    run_harvest(today, tmp_path)
    tomorrow = dataclasses.replace(today, plan=dataclasses.replace(today.plan, ids_sha256="0" * 64))
    with pytest.raises(ModelMismatch, match="token ids"):
        run_harvest(tomorrow, tmp_path)


def test_texts_can_not_be_added_later(fake, tmp_path):
    harvest = planned(fake)
    start(harvest, tmp_path / "without")
    with pytest.raises(UsageError, match="without --keep-text"):
        start(harvest, tmp_path / "without", keep_text=True)
    start(harvest, tmp_path / "with", keep_text=True)
    start(harvest, tmp_path / "with")


def test_leftovers_are_swept_at_the_start(run, fake):
    for folder in (run, run / "shards"):
        (folder / ".tmp-00000000-1-00000000-00000000-x").write_bytes(b"")  # of another host, and not old
    kept = names(run)
    run_harvest(planned(fake), run.parent)
    assert names(run) == kept


def test_a_shard_exists_when_its_record_does(fake, tmp_path):
    harvest = planned(fake)
    run = start(harvest, tmp_path)
    (run.folder / "shards/00000-0123456789abcdef.safetensors").write_bytes(b"left by a crash")
    assert not run.committed(0)
    run_harvest(harvest, tmp_path)
    assert run.committed(0)
    assert len(shard_digests(run.folder)) == len(harvest.plan.shards)


def test_quarantine_sets_only_damaged_shards_aside(run, fake):
    written = start(planned(fake), run.parent)
    data = next(run.glob("shards/00001-*"))
    content = data.read_bytes()
    data.unlink()
    data.write_bytes(content[:-1] + b"?")
    assert written.quarantine(0) is None
    assert isinstance(written.quarantine(1), CorruptShard)
    assert {n for n in names(run) if "00001" in n} == {
        "quarantine/00001-0.json",
        f"quarantine/{data.stem}-0.safetensors",
    }
    assert not written.committed(1)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["manifest.json", "prompts.parquet", "shards/00001.json", "shards/00001-*"])
@pytest.mark.parametrize("damage", ["flip", "empty", "gone"])
def test_repair_brings_back_the_same_cache(run, fake, file, damage):
    whole, path = shard_digests(run), next(run.glob(file))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "flip" else b"")
    fake.calls.clear()
    run_harvest(planned(fake), run.parent, repair=True)
    assert fake.calls == ([4] if "shards" in file else [])
    assert ActivationCache.open(run).verify() == []
    assert shard_digests(run) == whole


def test_repair_keeps_what_is_damaged_every_time(run, fake):
    for _ in range(3):
        replace(next(run.glob("shards/00001-*")), b"damaged")
        run_harvest(planned(fake), run.parent, repair=True)
    assert sum(n.startswith("quarantine/") for n in names(run)) == 6


def test_repair_keeps_the_texts(fake, tmp_path):
    run = run_harvest(planned(fake), tmp_path, keep_text=True)
    replace(run / "prompts.parquet", b"damaged")
    run_harvest(planned(fake), tmp_path, repair=True)
    assert ActivationCache.open(run).prompts["text"].notna().all()


def test_a_manifest_of_another_run_is_refused_and_repaired(run, fake, tmp_path):
    whole, other = shard_digests(run), run_harvest(planned(fake, storage="bf16"), tmp_path / "other")
    for file in ("manifest.json", "prompts.parquet"):
        replace(run / file, (other / file).read_bytes())
    with pytest.raises(ModelMismatch) as error:
        run_harvest(planned(fake), run.parent)
    assert error.value.field == "capture.storage"
    run_harvest(planned(fake), run.parent, repair=True)
    assert ActivationCache.open(run, expect=planned(fake).identity).verify() == []
    assert shard_digests(run) == whole


def test_repair_notices_a_shard_of_another_place(run, fake):
    """Swapped together with their records, two shards are intact and in the wrong place."""
    whole, shards = shard_digests(run), run / "shards"
    for old, new in (("00000", "swap"), ("00001", "00000"), ("swap", "00001")):
        for path in shards.glob(f"{old}*"):
            path.rename(path.with_name(path.name.replace(old, new)))
    with pytest.raises(CorruptShard, match=r"00000.json: expected run \w+ shard 0, found run \w+ shard 1"):
        ActivationCache.open(run)
    run_harvest(planned(fake), run.parent, repair=True)
    assert ActivationCache.open(run).verify() == []
    assert shard_digests(run) == whole
