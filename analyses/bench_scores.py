"""What a bench says of each locator, and of the claim: hits near the plant, errors, false alarms on nulls.

A hit is an onset within one layer of the plant, of a curve that separates at all. A false alarm is a curve that
separates where nothing was planted.
"""

import numpy as np
import pandas as pd

from analyses.locator_bench import HIDDEN, NULL, SHUFFLED, SPELLED
from interp.stats import wilson

NEAR = 1
"""Layers by which a hit may be off."""
TOOK = 0.5
"""Least share of the carriers of a plant that are refused, minus that of all others; other plants decide nothing."""
ALL = "plants"


def locator_scores(curves: pd.DataFrame) -> pd.DataFrame:
    """Hit rate, median error and false alarms of every locator.

    Args:
        curves: of `analyses.locator_bench.run`.

    Returns:
        Of the plants that took (see `TOOK`), one row per locator and kind (spelled, hidden, and plants for both):
        ``hits`` with its Wilson interval and n, ``error`` (median distance of the onset from the plant in layers, over
        plants that the locator separates), ``alarms`` on nulls and ``alarms_exchanged`` on nulls with exchanged
        labels, with theirs.
    """
    rows = []
    curves = taken(curves)
    for locator, own in curves.groupby("locator", sort=False):
        alarms = {
            name: _rate(own.loc[own["kind"] == kind, "separates"], name)
            for name, kind in (("alarms", NULL), ("alarms_exchanged", SHUFFLED))
        }
        for kind, kinds in ((ALL, (SPELLED, HIDDEN)), (SPELLED, (SPELLED,)), (HIDDEN, (HIDDEN,))):
            part = own[own["kind"].isin(kinds)]
            error = (part["onset"] - part["layer"]).abs()
            shown = part["separates"] & np.isfinite(part["onset"])
            median = float(error[shown].median()) if shown.any() else float("nan")
            rows.append(
                {"locator": locator, "kind": kind, **_rate(shown & (error <= NEAR), "hits"), "error": median}
                | {name: value for rate in alarms.values() for name, value in rate.items()}
            )
    return pd.DataFrame(rows)


def claim_scores(claims: pd.DataFrame) -> pd.DataFrame:
    """How often a layer of decision is claimed, and whether the range holds the plant.

    Args:
        claims: of `analyses.locator_bench.run`.

    Returns:
        One row per kind of case (plants on all harmful prompts, plants on a part of them, and the two nulls):
        ``established`` and ``patches`` (all controls passed but those of behaviour) as shares with Wilson intervals and
        n, and ``right``: of the cases of which the patches passed, those whose range comes within `NEAR` layers of the
        plant.
    """
    claims = taken(claims)
    planted = claims["layer"].notna()
    kinds = {
        "plants, all harmful prompts refused": planted & (claims["coverage"] == 1),
        "plants, some of them refused": planted & (claims["coverage"] < 1),
        NULL: claims["kind"] == NULL,
        SHUFFLED: claims["kind"] == SHUFFLED,
    }
    rows = []
    for kind, chosen in kinds.items():
        part = claims[chosen]
        passed = part[part["patches"] & part["layer"].notna()]
        right = (passed["lo"] - NEAR <= passed["layer"]) & (passed["layer"] <= passed["hi"] + NEAR)
        rates = (_rate(part["established"], "established"), _rate(part["patches"], "patches"), _rate(right, "right"))
        rows.append({"cases": kind} | {name: value for rate in rates for name, value in rate.items()})
    return pd.DataFrame(rows)


def taken(found: pd.DataFrame) -> pd.DataFrame:
    """The nulls, and the plants that took."""
    return found[~(found["took"] < TOOK)]


def _rate(hits: pd.Series, name: str) -> dict[str, float]:
    found = wilson(int(hits.sum()), len(hits))
    return {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi, f"{name}_n": found.n}
