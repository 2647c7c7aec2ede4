"""A folder made once from pinned sources and kept: its record tells when it is damaged, or made from something else."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from interp.packages import Notify, sha256

RECORD = "converted.json"


def kept_folder(folder: Path, source: str, make: Callable[[Path, Path], None], notify: Notify) -> Path:
    """Returns the folder when it is intact, else makes it and moves it to its place in one step.

    Args:
        folder: where it lies for good.
        source: digest of what it is made from; a folder of another source is made again.
        make: called with a new folder to fill and one for what is needed meanwhile; both are on the same disk.
        notify: told when a folder is damaged.
    """
    if intact(folder, source):
        return folder
    if folder.exists():
        notify(f"{folder} is incomplete, damaged or of another version; it is made again.")
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        made, meanwhile = Path(temporary) / "made", Path(temporary) / "meanwhile"
        made.mkdir()
        meanwhile.mkdir()
        make(made, meanwhile)
        _publish(made, folder, source)
    return folder


def intact(folder: Path, source: str) -> bool:
    """Whether the folder was made from this source and no byte of it has changed since."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return bool(record["source"] == source) and all(
            sha256(folder / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _publish(made: Path, folder: Path, source: str) -> None:
    """Records the digests and moves the folder; another process may have been faster."""
    files = sorted(p for p in made.rglob("*") if p.is_file())
    digests = {p.relative_to(made).as_posix(): sha256(p) for p in files}
    (made / RECORD).write_text(json.dumps({"source": source, "files": digests}, indent=1))
    try:
        made.rename(folder)
    except OSError:
        if not intact(folder, source):
            raise
