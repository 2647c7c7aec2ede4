"""Which code made a result: a study is reused only by the very code that wrote it."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("interp", "analyses", "probes")


@cache
def code_digest(*packages: str) -> str:
    """The first 16 hex digits of the sha256 over the Python, template and text files of packages.

    Args:
        packages: such as ``interp.lens``; all of the product if left out.
    """
    digest = hashlib.sha256()
    for package in packages or PACKAGES:
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in (".py", ".jinja", ".txt"):
                    digest.update(f"{package}/{path.relative_to(folder).as_posix()}\n".encode())
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
