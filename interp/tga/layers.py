"""Which layers are guided: written out, or taken from a claim of a finished study."""

import math
from pathlib import Path

from interp.errors import UsageError
from interp.ledger import read_claims
from interp.study import Claim

CLAIM = "claim:"
LOCATOR = "causal_patch"
"""The locator whose claims say where refusal is decided."""


def parse_layers(text: str, *, force: bool = False) -> tuple[int, ...] | None:
    """Reads what a user calls layers.

    Args:
        text: ``all`` for 1 to N (gives None), ``10-18``, ``3,7,10-12``, or ``claim:RUN`` for the layers in which a
            study found refusal decided.
        force: take the layers of a claim that is not established, too.

    Returns:
        Ascending layer numbers; None for all.

    Raises:
        UsageError: for anything else, and for a claim that is not established or names no layers.
        StudyError: when the claims of the study can not be read.
    """
    if text.startswith(CLAIM):
        return claimed_layers(Path(text.removeprefix(CLAIM)), force=force)
    if text == "all":
        return None
    try:
        found = {layer for part in text.split(",") for layer in _range(part)}
    except ValueError as error:
        raise UsageError(f"layers {text!r}: write all, 10-18, 3,7,10-12 or claim:RUN.") from error
    return tuple(sorted(found))


def claimed_layers(run: Path, *, force: bool = False) -> tuple[int, ...]:
    """The layers in which a study found that refusal is decided, at t_post where it was patched there.

    Args:
        run: the folder of the study, with claims.json.
        force: take a claim that is not established, too; its interval must name layers all the same.

    Raises:
        UsageError: when the study makes no such claim, or makes it without establishing it.
    """
    claims = sorted((c for c in read_claims(run) if c.locator == LOCATOR), key=lambda c: c.position != "t_post")
    chosen = next((c for c in claims if c.established), None)
    if chosen is None and claims and force:
        chosen = claims[0]
    if chosen is None:
        why = claims[0].verdict if claims else f"it has no claim of {LOCATOR}."
        raise UsageError(f"{run}: no layers in which refusal is decided are established: {why} Name layers yourself.")
    return _layers_of(chosen, run)


def _layers_of(claim: Claim, run: Path) -> tuple[int, ...]:
    lo, hi = claim.span or (math.inf, math.inf)
    if not math.isfinite(lo) or not math.isfinite(hi):
        raise UsageError(f"{run}: the claim names no layers ({claim.statement}); name layers yourself.")
    return tuple(range(math.floor(lo), math.ceil(hi) + 1))


def _range(part: str) -> range:
    first, dash, last = part.strip().partition("-")
    found = range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError(part)
    return found
