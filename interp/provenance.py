"""Which code made a result: a study is reused only by the very code that wrote it."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("interp", "analyses", "probes")


@cache
def code_digest(*packages: str) -> str:
    """The first 16 hex digits of the sha256 over the Python, template and text files of packages.

    Args:
        packages: or modules, such as ``interp.lens``; all of the product if left out.
    """
    digest = hashlib.sha256()
    for package in packages or PACKAGES:
        for name, path in _files(package):
            digest.update(f"{package}/{name}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """The files of a package by their names inside it; of a module its one file."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    if spec.submodule_search_locations is None:
        yield "", Path(spec.origin)
    for folder in spec.submodule_search_locations or []:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in (".py", ".jinja", ".txt"):
                yield path.relative_to(folder).as_posix(), path
