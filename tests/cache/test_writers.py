"""Several processes that write one run at once, and disks that fill up while they do."""

import errno
import os
import resource
import shutil
import threading
from pathlib import Path

import pytest

from interp.cache import ActivationCache, run_harvest
from interp.cache import harvest as harvest_module
from interp.cache.identity import run_key
from interp.cache.records import read_json
from interp.cache.shard import check_shard, data_name
from interp.errors import CacheError, DiskFull
from interp.models.hooks import HooksAdapter
from tests.cache.samples import (
    Altered,
    FakeAdapter,
    in_child,
    names,
    planned,
    shard_digests,
    start_child,
)
from tests.tiny import make_tokenizer, tiny_llama

ROUNDS = 10


def together(works):
    """Starts all children, lets them go at the same moment, and returns how they end."""
    ready, go = os.pipe()

    def wait_and(work):
        os.close(go)
        os.read(ready, 1)  # returns when every holder of the other end is gone
        work()

    pids = [start_child(lambda work=work: wait_and(work)) for work in works]
    os.close(go)
    os.close(ready)
    return pids


def read_while(pids, run):
    """Checks every committed shard over and over until the writers end; returns their ends and the reads."""
    ends, reads = {}, 0
    while len(ends) < len(pids):
        for record_path in run.glob("shards/*.json"):
            if not record_path.name.startswith(".tmp-"):
                record = read_json(record_path)
                check_shard(record_path.with_name(data_name(record["shard"], record)), record)
                reads += 1
        for pid in set(pids) - ends.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ends[pid] = os.waitstatus_to_exitcode(status)
    return list(ends.values()), reads


def test_writers_of_one_run_agree_and_no_read_is_torn(tmp_path):
    harvest = planned(HooksAdapter.of_module(tiny_llama(), make_tokenizer()), n=24)
    assert in_child(lambda: run_harvest(harvest, tmp_path / "one")) == 0
    one, reads = next((tmp_path / "one").iterdir()), 0
    for i in range(ROUNDS):
        root = tmp_path / str(i)
        pids = together([lambda root=root: run_harvest(harvest, root)] * 3)
        ends, some = read_while(pids, root / one.name)
        assert ends == [0, 0, 0]
        assert shard_digests(root / one.name) == shard_digests(one)
        assert names(root / one.name) == names(one)
        reads += some
    assert reads > 100


def test_writers_that_do_not_agree_stop_and_leave_a_whole_run(tmp_path):
    def differing():
        noise = 1e-3 * os.getpid()
        return planned(Altered(FakeAdapter(), lambda states, *_: states + noise), max_rows=1)

    key, stopped, reads = run_key(differing().identity), 0, 0
    for i in range(ROUNDS):
        root = tmp_path / str(i)
        pids = together([lambda root=root: run_harvest(differing(), root)] * 3)
        ends, some = read_while(pids, root / key)
        assert set(ends) <= {0, CacheError.exit_code}
        stopped, reads = stopped + ends.count(CacheError.exit_code), reads + some
        if 0 in ends:
            assert ActivationCache.open(root / key).verify() == []
            assert len(shard_digests(root / key)) == 12
        assert not [n for n in names(root / key) if ".tmp-" in n]
    assert stopped
    assert reads > 100


def test_two_writers_in_one_process_do_not_sweep_each_other(fake, tmp_path):
    harvests, errors = [planned(FakeAdapter(), max_rows=1) for _ in range(2)], []

    def work(harvest):
        try:
            run_harvest(harvest, tmp_path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(h,)) for h in harvests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ActivationCache.open(next(tmp_path.iterdir())).verify() == []


def test_a_later_writer_with_another_result_is_refused(run, fake, monkeypatch):
    before = shard_digests(run)
    other = planned(Altered(fake, lambda states, *_: states + 1e-6))
    monkeypatch.setattr(harvest_module.Run, "committed", lambda *_: False)
    with pytest.raises(CacheError, match="computed this shard differently") as error:
        run_harvest(other, run.parent)
    assert sum(digest in str(error.value) for digest in before.values()) == 1
    assert shard_digests(run) == before
    assert ActivationCache.open(run).verify() == []


class Disk:
    """A disk that has room for so many files more."""

    def __init__(self, monkeypatch, writes, number=errno.ENOSPC):
        self.left, self.number, real = writes, number, Path.write_bytes

        def write_bytes(path, data):
            if self.left == 0:
                real(path, data[: len(data) // 2])
                raise OSError(self.number, os.strerror(self.number), str(path))
            self.left -= 1
            return real(path, data)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("writes", range(8))
def test_a_disk_that_fills_up_keeps_what_is_finished(fake, tmp_path, monkeypatch, writes):
    harvest = planned(fake)
    whole = shard_digests(run_harvest(harvest, tmp_path / "large"))
    with monkeypatch.context() as patch:
        Disk(patch, writes)
        with pytest.raises(DiskFull, match=r"needs .* MiB, .* MiB are free.*make room") as error:
            run_harvest(harvest, tmp_path / "small")
    assert error.value.exit_code == 5
    folder = next((tmp_path / "small").iterdir())
    assert len(list(folder.glob("shards/*.json"))) == max(0, writes - 2) // 2
    assert not [n for n in names(folder) if ".tmp-" in n]
    assert shard_digests(run_harvest(harvest, tmp_path / "small")) == whole


def test_too_little_room_is_noticed_before_anything_is_computed(fake, tmp_path, monkeypatch):
    harvest = planned(fake)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=harvest.bytes - 1))
    with pytest.raises(DiskFull) as error:
        run_harvest(harvest, tmp_path)
    assert (error.value.needed, error.value.free) == (harvest.bytes, harvest.bytes - 1)
    assert fake.calls == []


def test_room_is_needed_only_for_what_is_missing(fake, run, monkeypatch):
    (run / "shards/00001.json").unlink()
    usage, third = shutil.disk_usage(run), planned(fake).bytes // 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=third - 1))
    with pytest.raises(DiskFull) as error:
        run_harvest(planned(fake), run.parent)
    assert error.value.needed == third
    assert run_harvest(planned(fake), run.parent, part=(0, 3)) == run
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=third))
    assert ActivationCache.open(run_harvest(planned(fake), run.parent)).verify() == []


def test_a_real_limit_on_file_size_is_a_full_disk_and_the_run_goes_on_after_it(tmp_path):
    adapter = HooksAdapter.of_module(tiny_llama(), make_tokenizer())
    harvest = planned(adapter, n=24, max_rows=16)
    largest = 16 * 5 * 2 * 32 * 4

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        run_harvest(harvest, tmp_path / "limited")

    assert in_child(lambda: run_harvest(harvest, tmp_path / "whole")) == 0
    assert in_child(limited) == DiskFull.exit_code
    run = next((tmp_path / "limited").iterdir())
    assert len(shard_digests(run)) < len(harvest.plan.shards)
    assert not [n for n in names(run) if ".tmp-" in n]
    assert in_child(lambda: run_harvest(harvest, tmp_path / "limited")) == 0
    assert shard_digests(run) == shard_digests(tmp_path / "whole" / run.name)
