"""A harvest that is killed at any moment goes on to the very same cache."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from interp.cache import ActivationCache, run_harvest
from interp.cache.records import read_json
from interp.models.hooks import HooksAdapter
from tests.cache.samples import end_of, in_child, names, planned, shard_digests, start_child
from tests.tiny import make_tokenizer, tiny_llama

KILLS = 50
KILLED = -signal.SIGKILL


def resumed(harvest, root, run, whole, *, child=True):
    """Goes on after a kill and compares with the run that was not killed."""
    folder = root / run.name
    for path in folder.rglob("*.json"):
        if not path.name.startswith(".tmp-"):
            read_json(path)  # whole, or not there
    if child:
        assert in_child(lambda: run_harvest(harvest, root)) == 0
    else:
        run_harvest(harvest, root)
    assert shard_digests(folder) == whole
    assert names(folder) == names(run)
    assert ActivationCache.open(folder).verify() == []


@pytest.fixture(scope="module")
def harvest():
    return planned(HooksAdapter.of_module(tiny_llama(), make_tokenizer()), n=24)


@pytest.fixture(scope="module")
def unkilled(harvest, tmp_path_factory):
    """The run folder, its digests, and how long it takes."""
    root = tmp_path_factory.mktemp("unkilled")
    for attempt in ("warm", "timed"):
        started = time.perf_counter()
        assert in_child(lambda attempt=attempt: run_harvest(harvest, root / attempt)) == 0
    run = next((root / "timed").iterdir())
    return run, shard_digests(run), time.perf_counter() - started


def test_killed_at_random_times(harvest, unkilled, tmp_path):
    run, whole, seconds = unkilled
    rng, kills, shards_at_kill = random.Random(0), 0, []
    for attempt in range(20 * KILLS):
        root = tmp_path / str(attempt)
        pid = start_child(lambda root=root: run_harvest(harvest, root))
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        killed = end_of(pid) == KILLED
        if killed:
            shards_at_kill.append(len(list(root.glob("*/shards/*.json"))))
        resumed(harvest, root, run, whole)
        kills += killed
        if kills == KILLS:
            break
    assert kills == KILLS
    assert len(set(shards_at_kill)) > 2, "the kills must hit runs in different states"


STEPS = ((os, "fsync"), (os, "link"), (Path, "chmod"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"))


def die_at(moment):
    """Kills this process at the n-th moment just before, just after or amid a step of the write protocol."""
    left = [moment]

    def passing():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    for owner, name in STEPS:
        real = getattr(owner, name)

        def step(*args, real=real, **options):
            passing()
            result = real(*args, **options)
            passing()
            return result

        setattr(owner, name, step)

    write = Path.write_bytes

    def write_bytes(path, data):
        write(path, data[: len(data) // 2])
        passing()
        write(path, data)
        passing()

    Path.write_bytes = write_bytes


def test_killed_at_every_step_of_writing(fake, tmp_path):
    """Amid and after writing, before and after sync, read-only, rename, link and unlink, for every file of a run."""
    harvest = planned(fake, n=6)
    run = run_harvest(harvest, tmp_path / "unkilled")
    whole, moment = shard_digests(run), 0
    while True:
        root = tmp_path / str(moment)

        def work(moment=moment, root=root):
            die_at(moment)
            run_harvest(harvest, root)

        end = in_child(work)
        resumed(harvest, root, run, whole, child=False)
        if end == 0:
            break
        assert end == KILLED
        moment += 1
    # Six files, each with ten moments and more.
    assert len(names(run)) == 6
    assert moment > 60


def test_killed_again_and_again(harvest, unkilled, tmp_path):
    run, whole, seconds = unkilled
    rng = random.Random(1)
    for _ in range(10):
        pid = start_child(lambda: run_harvest(harvest, tmp_path))
        time.sleep(rng.uniform(0, seconds / 2))
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
    resumed(harvest, tmp_path, run, whole)
