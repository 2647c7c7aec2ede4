"""Pinned packages: what is not the pinned file is never read."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from interp.errors import FetchError
from interp.packages import Package, fetch, read_tarball

CONTENT = b"a package"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def registry(monkeypatch):
    """Clients that write the same file for whatever they are asked, and what they were asked."""
    asked = []

    def run(command, **_):
        asked.append(command)
        flag = "--dest" if "pip" in command else "--pack-destination"
        folder = Path(command[command.index(flag) + 1])
        (folder / ("p-1.whl" if flag == "--dest" else "p-1.tgz")).write_bytes(CONTENT)
        return type("Result", (), {"returncode": 0})()

    monkeypatch.setattr(subprocess, "run", run)
    return asked


@pytest.mark.parametrize(("client", "wanted"), [("pip", "p==1"), ("npm", "p@1")])
def test_a_package_is_fetched_by_its_own_client(registry, tmp_path, client, wanted):
    package = Package(client, "p", "1", DIGEST, 1.0, "MIT")
    said = []
    path = fetch(package, tmp_path, said.append)
    assert path.read_bytes() == CONTENT and wanted in said[0]
    if client == "npm":
        assert registry[0][:3] == ["npm", "pack", wanted]
    else:
        requirements = Path(registry[0][registry[0].index("--requirement") + 1]).read_text()
        assert requirements == f"p==1 --hash=sha256:{DIGEST}\n" and "--require-hashes" in registry[0]


@pytest.mark.parametrize("client", ["pip", "npm"])
def test_another_file_than_the_pinned_one_is_refused(registry, tmp_path, client):
    with pytest.raises(FetchError, match="not the pinned"):
        fetch(Package(client, "p", "1", "0" * 64, 1.0, "MIT"), tmp_path, lambda _: None)


@pytest.mark.parametrize(("client", "remedy"), [("pip", "ensurepip"), ("npm", "Node.js")])
def test_a_client_that_fails_or_is_not_there_is_explained(tmp_path, monkeypatch, client, remedy):
    def absent(*_, **__):
        raise FileNotFoundError

    package = Package(client, "p", "1", DIGEST, 1.0, "MIT")
    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(FetchError, match=remedy):
        fetch(package, tmp_path, lambda _: None)


def test_a_notebook_has_no_file_behind_its_standard_error(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    path = fetch(Package("pip", "p", "1", DIGEST, 1.0, "MIT"), tmp_path, lambda _: None)
    assert path.read_bytes() == CONTENT


def test_files_of_a_tarball_are_read_in_one_pass(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name * 3)
    with tarfile.open(tmp_path / "t.tgz", "w:gz") as archive:
        for name in "abc":
            archive.add(tmp_path / name, f"package/{name}")
    found = dict(read_tarball(tmp_path / "t.tgz", {"package/a", "package/c"}.__contains__))
    assert found == {"package/a": b"aaa", "package/c": b"ccc"}
