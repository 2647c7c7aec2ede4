import gc
import re
from pathlib import Path

import fsspec
import pytest
import torch

from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.cache import shard as shard_module
from interp.cache import store as store_module
from interp.errors import CacheError, CorruptShard, UsageError
from tests.cache.samples import planned, some_prompts


@pytest.fixture
def opened(run):
    return ActivationCache.open(run)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the shards whose bytes were read to be checked."""
    seen, real = [], shard_module.sha256_file
    monkeypatch.setattr(shard_module, "sha256_file", lambda path: seen.append(path.name[:5]) or real(path))
    return seen


def test_a_cache_says_what_is_in_it(opened, run, fake):
    assert opened.positions == ("t_inst", "t_post")
    assert opened.layers == (0, 1, 2, 3)
    assert opened.d_model == 8
    assert len(opened) == 12
    assert opened.key == run.name
    assert opened.identity == planned(fake).identity
    assert re.fullmatch(
        rf"ActivationCache\('.*{run.name}': 12 prompts, 4 layers, positions t_inst, t_post, d_model 8\)", repr(opened)
    )


def test_states_come_in_prompt_order(opened, fake):
    harvest = planned(fake)
    assert [i for shard in harvest.plan.shards for i in shard] != list(range(12))
    for k, position in enumerate(opened.positions):
        states = opened.residuals(position=position)
        for row, encoded in enumerate(harvest.encoded):
            alone = fake.table[list(encoded.ids[: list(encoded.at.values())[k] + 1])].sum(0)
            torch.testing.assert_close(states[row, 0], alone, atol=1e-5, rtol=0)


def test_some_rows_are_read_alone_in_the_order_asked_for(opened):
    whole = opened.residuals(position="t_post")
    rows = [7, 0, 11, 7]
    assert torch.equal(opened.rows(rows, position="t_post").float(), whole[rows])
    with pytest.raises(UsageError, match="row 12"):
        opened.rows([1, 12], position="t_post")
    with pytest.raises(UsageError, match="t_inst"):
        opened.rows([1], position="nowhere")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_layer_is_a_slice_of_all(opened, dtype):
    for position in opened.positions:
        whole = opened.residuals(position=position, dtype=dtype)
        assert whole.shape == (12, 4, 8)
        assert whole.dtype == dtype
        for i, layer in enumerate(opened.layers):
            assert torch.equal(opened.residuals(position=position, layer=layer, dtype=dtype), whole[:, i])


def test_layers_are_named_by_number_and_not_by_place(fake, tmp_path):
    cache = ActivationCache.open(run_harvest(planned(fake, layers=(1, 3)), tmp_path))
    whole = ActivationCache.open(run_harvest(planned(fake), tmp_path))
    assert torch.equal(cache.residuals(position="t_inst", layer=3), whole.residuals(position="t_inst", layer=3))
    with pytest.raises(UsageError, match=r"layer 2 is not stored; it has \[1, 3\]"):
        cache.residuals(position="t_inst", layer=2)


@pytest.mark.parametrize("layer", [-1, 4])
def test_an_unknown_layer_is_refused(opened, layer):
    with pytest.raises(UsageError, match=rf"layer {layer} is not stored; it has \[0, 1, 2, 3\]"):
        opened.residuals(position="t_inst", layer=layer)


def test_an_unknown_position_is_refused(opened):
    for read in (lambda: opened.residuals(position="t_end"), lambda: next(opened.shards(position="t_end"))):
        with pytest.raises(UsageError, match="'t_end' is not stored; it has t_inst, t_post"):
            read()


def test_shards_are_streamed_in_the_stored_dtype(fake, tmp_path):
    cache = ActivationCache.open(run_harvest(planned(fake, storage="bf16"), tmp_path))
    whole, seen = cache.residuals(position="t_post"), []
    for rows, states in cache.shards(position="t_post"):
        assert states.dtype == torch.bfloat16
        assert torch.equal(states.float(), whole[rows])
        seen += rows
    assert sorted(seen) == list(range(12))


def test_only_the_layer_and_position_asked_for_are_read(opened, monkeypatch):
    taken, real = [], store_module.safe_open

    class Slice:
        def __init__(self, inner, name):
            self.inner, self.name = inner, name

        def __getitem__(self, index):
            taken.append((self.name, index))
            return self.inner[index]

    class Watched:
        def __init__(self, *args, **options):
            self.inner = real(*args, **options)

        def __enter__(self):
            self.file = self.inner.__enter__()
            return self

        def __exit__(self, *args):
            return self.inner.__exit__(*args)

        def get_slice(self, name):
            return Slice(self.file.get_slice(name), name)

        def get_tensor(self, name):
            raise AssertionError(f"all of {name} was read")

    monkeypatch.setattr(store_module, "safe_open", Watched)
    opened.residuals(position="t_post", layer=2)
    assert taken == [("resid_post.t_post", (slice(None), slice(2, 3)))] * 3


def test_one_layer_of_many_takes_the_memory_of_one(tmp_path):
    """64 MiB on disk, 1 MiB asked for."""
    many = {"t_inst": torch.rand(256, 64, 1024)}
    cache = ActivationCache.from_arrays(many, some_prompts(256), tmp_path, name="many")
    cache.residuals(position="t_inst", layer=4)
    gc.collect()
    before = own_memory()
    states = cache.residuals(position="t_inst", layer=5)
    assert torch.equal(states, many["t_inst"][:, 5])
    assert own_memory() - before < 8 * 2**20


def own_memory():
    """Bytes of memory that this process has for itself, mapped files not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_a_shard_is_checked_once_and_again_when_its_file_changes(run, opened, hashed):
    assert hashed == []
    opened.residuals(position="t_inst")
    opened.residuals(position="t_post", layer=1)
    assert hashed == ["00000", "00001", "00002"]
    path = next(run.glob("shards/00001-*"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    opened.residuals(position="t_inst")
    assert hashed == ["00000", "00001", "00002", "00001"]
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(CorruptShard):
        opened.residuals(position="t_inst")
    path.write_bytes(content)
    opened.residuals(position="t_inst")


def test_verify_reads_everything_every_time(run, opened, hashed):
    assert opened.verify() == []
    assert opened.verify() == []
    assert hashed == ["00000", "00001", "00002"] * 2
    assert opened.prompts is opened.prompts
    table = run / "prompts.parquet"
    content = table.read_bytes()
    table.unlink()
    table.write_bytes(content[:-1] + b"?")
    assert [f.path for f in opened.verify()] == [f"{run}/prompts.parquet"]


def test_verify_names_every_damaged_file(run, opened):
    damaged = sorted(run.glob("shards/*.safetensors"))[:2]
    for path in damaged:
        path.unlink()
    assert [str(f.path) for f in opened.verify()] == [str(p) for p in damaged]


def test_prompts_are_those_of_the_run_without_their_texts(opened, fake):
    frame = opened.prompts
    assert list(frame.columns) == [*("id", "text", "label", "category", "group", "split", "image", "text_sha256")]
    prompts = some_prompts(12)
    assert list(frame["id"]) == [p.id for p in prompts]
    assert list(frame["label"]) == [p.label for p in prompts]
    assert all(value is None for value in [*frame["text"], *frame["category"]])
    assert frame["text_sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_texts_are_kept_only_when_asked(fake, tmp_path, run):
    text = some_prompts(1).prompts[0].text
    kept = run_harvest(planned(fake), tmp_path / "kept", keep_text=True)
    assert list(ActivationCache.open(kept).prompts["text"]) == [p.text for p in some_prompts(12)]
    stored = [b"".join(p.read_bytes() for p in r.rglob("*") if p.is_file()) for r in (kept, run)]
    assert [text.encode() in s for s in stored] == [True, False]


def test_without_a_run_or_a_finished_one_it_says_what_to_do(run, tmp_path):
    with pytest.raises(CacheError, match=r"no run here \(no manifest.json\); give the folder"):
        ActivationCache.open(tmp_path / "nothing")
    with pytest.raises(CacheError, match="no run here"):
        ActivationCache.open("memory://nothing")
    (run / "shards/00002.json").unlink()
    with pytest.raises(CacheError, match=r"not finished, shard 2 of 3 is missing; run the same harvest again"):
        ActivationCache.open(run)


def uploaded(run, url):
    filesystem, root = fsspec.url_to_fs(url)
    filesystem.put(str(run), root, recursive=True)
    return filesystem, root


def test_any_place_that_fsspec_knows_reads_the_same(run, opened, hashed):
    uploaded(run, "memory://elsewhere/a run")
    remote = ActivationCache.open("memory://elsewhere/a run", expect=opened.identity)
    for position in opened.positions:
        assert torch.equal(remote.residuals(position=position), opened.residuals(position=position))
        assert torch.equal(remote.residuals(position=position, layer=2), opened.residuals(position=position, layer=2))
    assert remote.prompts.equals(opened.prompts)
    assert remote.verify() == []


def test_damage_elsewhere_is_named_by_its_url_and_read_again_when_repaired(run):
    filesystem, root = uploaded(run, "memory://damaged")
    name = next(run.glob("shards/00001-*")).name
    content = filesystem.cat_file(f"{root}/shards/{name}")
    filesystem.pipe_file(f"{root}/shards/{name}", content[:-1] + b"?")
    cache = ActivationCache.open("memory://damaged")
    with pytest.raises(CorruptShard, match=f"memory://damaged/shards/{name}: expected sha256"):
        cache.residuals(position="t_inst")
    assert [f.path for f in cache.verify()] == [f"memory://damaged/shards/{name}"]
    filesystem.pipe_file(f"{root}/shards/{name}", content)
    assert cache.residuals(position="t_inst").shape == (12, 4, 8)
    filesystem.rm_file(f"{root}/shards/{name}")
    with pytest.raises(CorruptShard, match="no file"):
        ActivationCache.open("memory://damaged").residuals(position="t_inst")


def test_a_folder_may_have_any_name(run, monkeypatch, tmp_path):
    odd = run.rename(tmp_path / "a::b [1] %20 é #?")
    assert ActivationCache.open(odd).verify() == []
    assert ActivationCache.open(str(odd)).verify() == []
    monkeypatch.chdir(tmp_path)
    cache = ActivationCache.open(odd.name)
    monkeypatch.chdir("/")
    assert cache.verify() == []


def test_a_cache_is_never_written_by_reading(run, opened):
    before = {p: p.stat().st_mtime_ns for p in [run, *run.rglob("*")]}
    opened.residuals(position="t_inst")
    assert opened.verify() == []
    assert {p: p.stat().st_mtime_ns for p in [run, *run.rglob("*")]} == before


def test_one_prompt_is_enough(fake, tmp_path):
    cache = ActivationCache.open(run_harvest(plan_harvest(fake, some_prompts(1), Capture()), tmp_path))
    assert cache.residuals(position="t_post", layer=0).shape == (1, 8)
