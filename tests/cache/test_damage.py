"""Whatever happens to the bytes of a run, no wrong number is ever read from it, and repair brings it back."""

import random
import shutil
from contextlib import suppress

import pytest

from interp.cache import ActivationCache, run_harvest
from interp.errors import CacheError, CorruptShard, InterpError
from tests.cache.samples import planned, shard_digests, some_prompts

FLIPS = 500


def read_all(run):
    cache = ActivationCache.open(run)
    states = [cache.residuals(position=p, layer=i) for p in cache.positions for i in cache.layers]
    return states, cache.prompts


def must_be_noticed(run, what):
    """Both by checking the run and by just using it; anything but the product's own errors fails the test."""
    with pytest.raises(InterpError):
        read_all(run)
        pytest.fail(f"{what}: read without a word")
    with suppress(InterpError):
        assert ActivationCache.open(run).verify(), f"{what}: verified without a word"


def rewrite(path, content):
    path.chmod(0o644)
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed(run):
    files = sorted(p for p in run.rglob("*") if p.is_file())
    assert len(files) == 8  # manifest, prompts, three records, three shards
    rng = random.Random(0)
    for _ in range(FLIPS):
        path = rng.choice(files)
        content = path.read_bytes()
        flipped, bit = bytearray(content), rng.randrange(len(content) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        rewrite(path, flipped)
        must_be_noticed(run, f"bit {bit} of {path.name}")
        rewrite(path, content)
    assert ActivationCache.open(run).verify() == []


@pytest.mark.parametrize("file", ["manifest.json", "prompts.parquet", "shards/00001.json", "shards/00001-*"])
def test_every_truncation_is_noticed(run, file):
    path = next(run.glob(file))
    content = path.read_bytes()
    for end in {0, 1, 7, 8, 9, *range(0, len(content), max(1, len(content) // 40)), len(content) - 1}:
        rewrite(path, content[:end])
        must_be_noticed(run, f"{file} cut at {end}")


@pytest.mark.parametrize("file", ["manifest.json", "prompts.parquet", "shards/00001.json", "shards/00001-*"])
def test_zeros_and_extra_bytes_are_noticed(run, file):
    path = next(run.glob(file))
    content = path.read_bytes()
    for other in (content[:-512] + bytes(512), bytes(len(content)), content + b"\0", content + b" ", content * 2):
        rewrite(path, other)
        must_be_noticed(run, file)


def test_swapped_shards_are_noticed(run):
    first, second = sorted(run.glob("shards/*.safetensors"))[:2]
    one, two = first.read_bytes(), second.read_bytes()
    assert len(one) == len(two)
    rewrite(first, two)
    rewrite(second, one)
    must_be_noticed(run, "swapped data")
    assert len(ActivationCache.open(run).verify()) == 2
    rewrite(run / "shards/00000.json", (run / "shards/00001.json").read_bytes())
    must_be_noticed(run, "swapped data and record")


def test_a_shard_of_another_run_is_noticed(run, fake, tmp_path):
    foreign = run_harvest(planned(fake, layers=(0, 1, 2, 3), token_budget=4095), tmp_path / "foreign")
    assert foreign.name != run.name
    ours, theirs = (next(r.glob("shards/00001-*")) for r in (run, foreign))
    assert ours.name == theirs.name  # the same states, yet of another run
    rewrite(run / "shards/00001.json", (foreign / "shards/00001.json").read_bytes())
    must_be_noticed(run, "record of another run")
    bf16 = run_harvest(planned(fake, storage="bf16"), tmp_path / "foreign")
    (run / "shards/00001.json").unlink()
    shutil.copy(bf16 / "shards/00001.json", run / "shards")
    shutil.copy(next(bf16.glob("shards/00001-*")), run / "shards")
    must_be_noticed(run, "shard and record of another run")


@pytest.mark.parametrize(
    ("source", "target"), [("manifest.json", "shards/00001.json"), ("shards/00001.json", "manifest.json")]
)
def test_a_file_in_the_place_of_another_is_noticed(run, source, target):
    rewrite(run / target, (run / source).read_bytes())
    must_be_noticed(run, f"{source} as {target}")


def test_a_manifest_of_another_run_is_noticed(run, fake, tmp_path):
    other = run_harvest(planned(fake, storage="bf16"), tmp_path / "other")
    for file in ("manifest.json", "prompts.parquet"):
        rewrite(run / file, (other / file).read_bytes())
    must_be_noticed(run, "manifest of another run")


@pytest.mark.parametrize("file", ["manifest.json", "prompts.parquet", "shards/00001.json", "shards/00001-*"])
def test_a_deleted_file_is_noticed(run, file):
    next(run.glob(file)).unlink()
    with pytest.raises(CacheError) as error:
        read_all(run)
    if file in ("prompts.parquet", "shards/00001-*"):
        assert isinstance(error.value, CorruptShard)
        assert "--repair" in str(error.value)
        assert [f.found for f in ActivationCache.open(run).verify()] == ["no file"]


def test_a_folder_in_the_place_of_a_file_is_noticed(run):
    for file in ("prompts.parquet", "shards/00001-*", "shards/00000.json", "manifest.json"):
        path = next(run.glob(file))
        path.unlink()
        path.mkdir()
        must_be_noticed(run, f"{file} is a folder")


def test_repair_after_any_damage_gives_the_same_cache(run, fake):
    whole, rng = shard_digests(run), random.Random(2)
    for _ in range(40):
        path = rng.choice(sorted(p for p in run.rglob("*") if p.is_file() and "quarantine" not in p.parts))
        damaged = bytearray(path.read_bytes())
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        rewrite(path, damaged)
        run_harvest(planned(fake), run.parent, repair=True)
        assert shard_digests(run) == whole
        assert list(read_all(run)[1]["id"]) == [p.id for p in some_prompts(12)]
