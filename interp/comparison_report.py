"""A comparison of two studies as sentences, small tables and a page."""

import math
from typing import Any

import pandas as pd

from interp import figures
from interp.comparison import CURVE, Changed, ClaimPair, Comparison, apart, both
from interp.study import Claim, Control, Study, ranges

NOTHING = "Nothing differs."
UNIT = "value"
NO_SHIFT = "none"
NOTES = (
    "Two intervals that do not overlap show a difference; two that do are said to show none, which is no proof that "
    "the studies agree. The rule is cautious where both asked the same prompts. Every layer is looked at, so with many "
    "layers and curves a few that are just apart can be chance.",
    "Claims are matched by locator, family and position, and by model where a study has several; curves by group too; "
    "layers by their number, also between models of different depth. Never counts as later than every layer.",
)


def comparison_study(found: Comparison) -> Study:
    """The comparison as a study: identity, claims and curves as tables, both curves of every locator in one figure."""
    curves = _pairs(found)
    drawn = {}
    for number, ((locator, family), rows) in enumerate(curves.groupby(["locator", "family"], sort=False)):
        chosen, left_out = _contrasts(rows)
        caption = (
            f"{locator} ({family}) in both studies, in its own unit, with 95 % intervals{left_out}. A marker "
            "stands at every layer at which the intervals do not overlap."
        )
        drawn[f"curves_{number}"] = (figures.paired_curves(chosen, unit=UNIT), caption)
    return Study(
        title="What differs between two studies",
        headlines=tuple(sentences(found)),
        notes=NOTES,
        tables={
            "identity": identity_table(found.identity),
            "claims": claim_table(found.claims),
            "curves": found.curves,
            "layers_of_both": curves,
        },
        figures=drawn,
        claims=(),
        about={
            **{f"first: {k}": v for k, v in {"title": found.first.title, **found.first.about}.items()},
            **{f"second: {k}": v for k, v in {"title": found.second.title, **found.second.about}.items()},
        },
        drawn_from=dict.fromkeys(drawn, ("curves", "layers_of_both")),
    )


def sentences(found: Comparison) -> list[str]:
    """What changed, in words; one line when nothing did."""
    if found.same_findings:
        if not found.identity:
            return [NOTHING]
        return [_identity_sentence(found), f"Every claim and every curve is the same. {NOTHING}"]
    lines = [_identity_sentence(found)]
    if found.layers_only_in:
        lines.append(f"Layers that one study alone has are not compared: {ranges(found.layers_only_in)}.")
    lines += [line for pair in found.claims if not pair.same for line in _claim_sentences(pair)]
    lines += _curve_sentences(found.curves)
    for which, alone in (("first", found.only_first), ("second", found.only_second)):
        if len(alone):
            names = ", ".join(dict.fromkeys(f"{r.locator} ({r.family})" for r in alone.itertuples()))
            lines.append(f"{len(alone)} curves are in the {which} study only: {names}.")
    return lines


def identity_table(identity: tuple[Changed, ...]) -> pd.DataFrame:
    """One row per field that differs: field, first, second."""
    return pd.DataFrame([(c.field, c.first, c.second) for c in identity], columns=["field", "first", "second"])


def claim_table(claims: tuple[ClaimPair, ...]) -> pd.DataFrame:
    """One row per claim: what each study makes of it, with its onset; the shift; the controls that changed."""
    rows = [
        {
            "claim": pair.name,
            "first": _made(pair.first) + _and_onset(pair.first),
            "second": _made(pair.second) + _and_onset(pair.second),
            "onset shift": _shift(pair),
            "controls that changed": ", ".join(name for name, *_ in pair.controls),
        }
        for pair in claims
    ]
    return pd.DataFrame(rows, columns=["claim", "first", "second", "onset shift", "controls that changed"])


def _identity_sentence(found: Comparison) -> str:
    if not found.identity:
        return "What was run is the same in every field that is recorded."
    return f"What was run differs in {', '.join(c.field for c in found.identity)}."


def _claim_sentences(pair: ClaimPair) -> list[str]:
    if pair.first is None or pair.second is None:
        claim, which = (pair.second, "second") if pair.first is None else (pair.first, "first")
        return [f"{pair.name}: in the {which} study only, {_made(claim)}."]
    lines = []
    changed = "; ".join(_control(*one) for one in pair.controls)
    if pair.flipped:
        yes, no = ("first", "second") if pair.first.established else ("second", "first")
        lines.append(f"{pair.name}: established in the {yes} study, not established in the {no}: {changed}.")
    elif changed:
        lines.append(f"{pair.name}: {_made(pair.first)} in both studies, but controls changed: {changed}.")
    shift = _shift(pair)
    if shift not in ("", NO_SHIFT):
        lines.append(f"{pair.name}: onset {_onset(pair.first)} and {_onset(pair.second)}: {shift}.")
    return lines


def _control(name: str, first: Control | None, second: Control | None) -> str:
    said = ["not tested" if c is None else f"{'passed' if c.passed else 'failed'} ({c.found})" for c in (first, second)]
    needed = first or second
    return f"{name} {said[0]}, then {said[1]}; needed {needed.needed if needed else '-'}"


def _made(claim: Claim | None) -> str:
    return "not made" if claim is None else "established" if claim.established else "not established"


def _and_onset(claim: Claim | None) -> str:
    return "" if claim is None or claim.span is None else f", {_onset(claim)}"


def _onset(claim: Claim) -> str:
    value, lo, hi = ("never" if v is None else f"{v:g}" for v in (claim.onset, claim.lo, claim.hi))
    return f"{value} [{lo}, {hi}]"


def _shift(pair: ClaimPair) -> str:
    """The shift of the onset in words; "" where there is no onset in either study, or no pair."""
    if pair.overlap is None:
        return ""
    if pair.shift == 0:
        return NO_SHIFT
    far = f"{pair.shift:+g} layers" if math.isfinite(pair.shift) else "to never" if pair.shift > 0 else "from never"
    return f"{far}, {'inside the intervals: no difference shown' if pair.overlap else 'intervals do not overlap'}"


def _curve_sentences(curves: pd.DataFrame) -> list[str]:
    """The largest difference of every locator, and how many of its curves show none."""
    lines = []
    for (locator, family), rows in curves.groupby(["locator", "family"], sort=False):
        clear, name = rows[rows["apart"] > 0], f"{locator} ({family})"
        if clear.empty and rows["identical"].all():
            lines.append(f"{name}: the same in all {len(rows)} curves.")
        elif clear.empty:
            lines.append(
                f"{name}: no difference shown; the intervals overlap at every layer of all {len(rows)} curves."
            )
        else:
            best: Any = clear.sort_values("difference", key=abs).iloc[-1]
            lines.append(
                f"{name}: {len(clear)} of {len(rows)} curves are apart, most at layer {best['layer']}, "
                f"{best['position']}, {best['group']}: {_interval(best, 'first')} and {_interval(best, 'second')}."
            )
    return lines


def _interval(row: Any, which: str) -> str:
    return f"{row[which]:.3g} [{row[f'{which}_lo']:.3g}, {row[f'{which}_hi']:.3g}]"


def _pairs(found: Comparison) -> pd.DataFrame:
    """One row per study, curve and layer that both have, with whether the two are apart there."""
    merged = both(found.first, found.second)
    merged["apart"] = apart(merged)
    parts = []
    for which, study in (("first", found.first), ("second", found.second)):
        model = next((study.about[k] for k in ("model.name", "models") if k in study.about), "")
        own = merged[[*CURVE, "layer", *(f"{c}_{which}" for c in ("value", "lo", "hi", "n")), "apart"]]
        own = own.rename(columns={f"{c}_{which}": c for c in ("value", "lo", "hi", "n")})
        parts.append(own.assign(study=f"{which}: {model}" if model and len(model) < 40 else which))
    return pd.concat(parts, ignore_index=True)


def _contrasts(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of differences between kinds where there are any, and words for what is left to the table."""
    contrast = rows["group"].astype(str).str.contains(" - ", regex=False)
    if contrast.any() and not contrast.all():
        return rows[contrast], "; the curves of each kind alone are in the table"
    return rows, ""
