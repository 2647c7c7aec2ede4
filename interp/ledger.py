"""The ledger: every claim of a study with its controls and where it comes from, in one sealed file.

``claims.json`` is an object with ``format``, ``sha256`` (over the canonical JSON of the claims) and ``claims``, a list
of `interp.study.Claim.record`. The digest tells a file that was edited or cut short; it is no signature.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.study import Claim

LEDGER = "claims.json"
FORMAT = 2
"""1 was a bare list of records, without a digest."""
AGAIN = "run the command that made the study again"


def write_claims(claims: Sequence[Claim], folder: Path | str) -> Path:
    """Writes the ledger of a study into its folder and returns the path.

    Raises:
        ValueError: when a claim does not say its prompts, code and seed, or holds what JSON can not.
    """
    # What is sealed is what a reader will see: JSON has neither tuples nor numbers as keys.
    records = json.loads(json.dumps([claim.record() for claim in claims], allow_nan=False))
    path = Path(folder) / LEDGER
    document = {"format": FORMAT, "sha256": _digest(records), "claims": records}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), "utf-8")
    return path


def read_claims(folder: Path | str) -> tuple[Claim, ...]:
    """The claims of the study in a folder.

    Raises:
        StudyError: when there is no ledger, an older or newer version wrote it, or it is not what was written.
    """
    path = Path(folder) / LEDGER
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: could not be read ({error}); {AGAIN}.") from error
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path}: is no JSON ({error}); it was damaged after it was written, {AGAIN}.") from error
    records = _records(found, path)
    try:
        return tuple(Claim.of_record(record) for record in records)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(f"{path}: holds a claim that can not be read ({error!r}); {AGAIN}.") from error


def _records(found: Any, path: Path) -> list[dict[str, Any]]:
    """The records of a ledger of this format whose digest is right."""
    version = 1 if isinstance(found, list) else found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int):
        raise StudyError(f"{path}: is no ledger of claims (it has no format number); {AGAIN}.")
    if version != FORMAT:
        remedy = AGAIN if version < FORMAT else "update interp"
        raise StudyError(f"{path}: a ledger of format {version}, this version reads {FORMAT}; {remedy}.")
    expected, records = found.get("sha256"), found.get("claims")
    actual = _digest(records)
    if expected != actual or not isinstance(records, list):
        raise StudyError(
            f"{path}: expected sha256 {expected}, found {actual}; a claim was changed after it was written, {AGAIN}."
        )
    return records


def _digest(records: Any) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
