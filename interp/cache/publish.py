"""Files appear at once or not at all: temporary, synced, read-only, then named; what a crash leaves is swept."""

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from interp.errors import CacheError, DiskFull

TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-")
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
DAY = 24 * 60 * 60
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PROCESS = secrets.token_hex(4)


@contextlib.contextmanager
def publishing(path: Path, *, needed: int = 0, once: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success what was written there appears under ``path`` at once.

    Written -> fsync -> read-only -> rename -> fsync of the folder. A crash at any point leaves either the whole file
    or none; a temporary file left behind is swept by the next harvest.

    Args:
        path: where the file is to appear; an older one there is replaced.
        needed: bytes about to be written, for the message when the disk is full.
        once: never replace.

    Raises:
        DiskFull: when the disk or the file size limit is reached.
        FileExistsError: with ``once``, when there is a file already.
    """
    temporary = path.with_name(f".tmp-{_HOST}-{os.getpid()}-{_PROCESS}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o444)
        if once:
            _link(temporary, path)
        else:
            temporary.replace(path)
        _sync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _failure(path, error, needed) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it.

    Raises:
        CacheError: when it can not be made; DiskFull when there is no room.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(path, error, 0) from error


def sweep(folder: Path) -> int:
    """Removes temporary files of writers that no longer run and returns how many there were."""
    orphans = [p for p in folder.iterdir() if _is_orphan(p)]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _is_orphan(path: Path) -> bool:
    """Whether a file is temporary and its writer gone; of a writer on another host only its age tells."""
    match = TEMPORARY.match(path.name)
    if not match:
        return False
    host, pid, process = match.groups()
    if host == _HOST:
        return not _runs(int(pid), process)
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > DAY
    return False


def _runs(pid: int, process: str) -> bool:
    """Whether a writer still runs; this process knows its own files from those of one that had its number before."""
    if pid == os.getpid():
        return process == _PROCESS
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _link(temporary: Path, path: Path) -> None:
    """Gives a file its name unless that is taken, in one step."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        # Some file systems (exFAT, network drives) have no hard links; there, looking first has to do.
        if error.errno in FULL:
            raise
        if path.exists():
            raise FileExistsError(path) from error
        temporary.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(path: Path, error: OSError, needed: int) -> CacheError:
    if error.errno in FULL:
        there = next(p for p in path.parents if p.exists())
        return DiskFull(path, needed, shutil.disk_usage(there).free)
    return CacheError(f"{path}: could not be written: {error}")
