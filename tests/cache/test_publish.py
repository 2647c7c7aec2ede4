import errno
import os
import re
import resource
import stat
import time
from pathlib import Path

import pytest

from interp.cache import publish
from interp.cache.publish import make_folder, publishing, sweep
from interp.errors import CacheError, DiskFull
from tests.cache.samples import end_of, in_child, names, start_child


def write(path, data=b"data", **options):
    with publishing(path, **options) as temporary:
        temporary.write_bytes(data)


def leftover(folder, **name):
    """A temporary file as a writer leaves it that is killed."""
    name = {"host": publish._HOST, "pid": os.getpid(), "process": publish._PROCESS} | name
    path = folder / f".tmp-{name['host']}-{name['pid']}-{name['process']}-0123abcd-00000.json"
    path.write_bytes(b"half")
    return path


def test_a_published_file_is_whole_read_only_and_alone(tmp_path):
    write(tmp_path / "a", b"one")
    write(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o444
    assert names(tmp_path) == {"a"}


def test_nothing_appears_before_the_end_or_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), publishing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        assert not (tmp_path / "a").exists()
        raise ZeroDivisionError
    assert names(tmp_path) == set()


def test_data_is_synced_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    synced, replaced = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(Path(f"/proc/self/fd/{fd}").readlink()) or synced(fd))
    monkeypatch.setattr(Path, "replace", lambda self, to: steps.append("replace") or replaced(self, to))
    write(tmp_path / "a")
    assert [".tmp-" in str(steps[0]), steps[1], steps[2]] == [True, "replace", tmp_path]


def test_once_means_the_first_stays(tmp_path):
    write(tmp_path / "a", b"first", once=True)
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"second", once=True)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == {"a"}


def test_once_holds_without_hard_links_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    test_once_means_the_first_stays(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write_bytes", "chmod", "replace"])
def test_a_full_disk_says_how_much_is_needed_and_free(tmp_path, monkeypatch, number, step):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(DiskFull, match=r"needs 3\.0 MiB, .* MiB are free") as found:
        write(tmp_path / "a", needed=3 * 2**20)
    assert found.value.needed == 3 * 2**20
    assert found.value.free > 0
    assert found.value.exit_code == 5
    monkeypatch.undo()
    assert names(tmp_path) == set()


def test_other_failures_say_what_failed(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CacheError, match=r"a: could not be written: .*input/output error") as found:
        write(tmp_path / "a")
    assert not isinstance(found.value, DiskFull)


def test_a_folder_that_can_not_be_made_is_an_error_of_the_product(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="could not be written"):
        make_folder(tmp_path / "file" / "runs")


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(DiskFull):
            write(tmp_path / "a", b"x" * 5000, needed=5000)

    assert in_child(work) == 0
    assert names(tmp_path) == set()


def test_leftovers_of_ended_writers_are_swept(tmp_path):
    ended = start_child(lambda: None)
    end_of(ended)
    leftover(tmp_path, pid=ended)
    leftover(tmp_path, process="0" * 8)  # one that had the number of this process before
    assert sweep(tmp_path) == 2
    assert names(tmp_path) == set()


def test_files_of_living_writers_stay(tmp_path):
    kept = {leftover(tmp_path), leftover(tmp_path, pid=os.getppid()), leftover(tmp_path, host="0" * 8)}
    (tmp_path / "00000.json").write_bytes(b"")
    (tmp_path / ".tmp-by-someone-else").write_bytes(b"")
    assert sweep(tmp_path) == 0
    assert kept <= set(tmp_path.iterdir())


def test_leftovers_of_another_host_are_swept_when_old(tmp_path):
    old = leftover(tmp_path, host="0" * 8)
    os.utime(old, (time.time() - 2 * publish.DAY,) * 2)
    assert sweep(tmp_path) == 1


def test_the_name_of_a_temporary_file_is_one_that_is_swept(tmp_path):
    with publishing(tmp_path / "00007.json") as temporary:
        temporary.write_bytes(b"")
        assert re.match(publish.TEMPORARY, temporary.name)
