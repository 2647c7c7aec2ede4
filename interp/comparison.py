"""What changed between two finished studies: of two runs, two models, or two versions of the code.

Two intervals that do not overlap show a difference; two that overlap do not show that there is none. Where both studies
asked the same prompts the rule is cautious, for what the prompts share is counted twice.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import UsageError
from interp.study import LAYERS_COLUMNS, Claim, Control, Study

CURVE = ["locator", "family", "position", "group"]
LAYERS = "layers"
ROUNDING = 1e-9
"""Two values this close, as a share of them, are the same."""
UNKNOWN = "-"
_SHOWN = ("value", "lo", "hi", "n")
_BEST = {
    "first": "value_first",
    "first_lo": "lo_first",
    "first_hi": "hi_first",
    "second": "value_second",
    "second_lo": "lo_second",
    "second_hi": "hi_second",
    "difference": "difference",
}


@dataclass(frozen=True, slots=True)
class Changed:
    """A field of the studies' identity that differs; ``-`` where a study does not have it."""

    field: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class ClaimPair:
    """One claim as each study makes it.

    Attributes:
        name: locator, family and position in words, and the model where a study holds several.
        first: None when only the second study makes it.
        second: None when only the first does.
    """

    name: str
    first: Claim | None
    second: Claim | None

    @property
    def flipped(self) -> bool:
        """Whether one study establishes it and the other tests it and does not."""
        return bool(self.first and self.second and self.first.established != self.second.established)

    @property
    def controls(self) -> tuple[tuple[str, Control | None, Control | None], ...]:
        """The controls that one study passes and the other fails or does not test, by name."""
        if not (self.first and self.second):
            return ()
        one, two = ({c.name: c for c in claim.controls} for claim in (self.first, self.second))
        names = dict.fromkeys([*one, *two])
        pairs = [(name, one.get(name), two.get(name)) for name in names]
        return tuple(p for p in pairs if not (p[1] and p[2] and p[1].passed == p[2].passed))

    @property
    def shift(self) -> float:
        """Onset of the second minus that of the first, in layers; inf or -inf from and to "never", NaN for no onset."""
        if not (self.first and self.second) or (self.first.span is None and self.second.span is None):
            return math.nan
        one, two = (math.inf if c.onset is None else c.onset for c in (self.first, self.second))
        return 0.0 if one == two else two - one

    @property
    def overlap(self) -> bool | None:
        """Whether the intervals of the two onsets share a layer; None when there is no onset to compare.

        "Never" is later than every layer, so two claims that may both never begin overlap.
        """
        if not (self.first and self.second) or (self.first.span is None and self.second.span is None):
            return None
        (lo, hi), (other_lo, other_hi) = (c.span or (math.inf, math.inf) for c in (self.first, self.second))
        return lo <= other_hi and other_lo <= hi

    @property
    def same(self) -> bool:
        """Whether the studies say the very same of it, down to the wording of every control."""
        if not (self.first and self.second):
            return False
        one, two = ((c.statement, c.onset, c.lo, c.hi, c.n, c.controls) for c in (self.first, self.second))
        return one == two


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between a first study and a second.

    Attributes:
        first: the one study.
        second: the other.
        identity: what differs in what was run: model, weights, prompts, code, settings.
        claims: every claim that either makes.
        curves: one row per curve that both have: `CURVE`, layers (how many both have), apart (at how many the
            intervals do not overlap), identical, and of the layer with the largest difference among those apart:
            layer, first, first_lo, first_hi, second, second_lo, second_hi, difference; missing when none is apart.
        only_first: the curves, as `CURVE`, that the second study does not have.
        only_second: those that the first does not have.
    """

    first: Study
    second: Study
    identity: tuple[Changed, ...]
    claims: tuple[ClaimPair, ...]
    curves: pd.DataFrame
    only_first: pd.DataFrame
    only_second: pd.DataFrame

    @property
    def same_findings(self) -> bool:
        """Whether every claim and every curve is the same."""
        alone = len(self.only_first) + len(self.only_second)
        return not alone and all(pair.same for pair in self.claims) and bool(self.curves["identical"].all())

    @property
    def layers_only_in(self) -> tuple[int, ...]:
        """The layers that only one of the studies has."""
        one, two = (set(study.tables[LAYERS]["layer"].astype(int)) for study in (self.first, self.second))
        return tuple(sorted(one ^ two))


def compare(first: Study, second: Study) -> Comparison:
    """Compares two studies field by field, claim by claim and curve by curve.

    Claims are matched by locator, family and position, and by their model where a study has several of the same;
    curves by `CURVE`; layers by their number.

    Args:
        first: such as `interp.report.read_study` returns; it needs a ``layers`` table.
        second: likewise.

    Raises:
        UsageError: when a study has no ``layers`` table, or the two have no curve in common.
    """
    tables = [_layers(study) for study in (first, second)]
    keys = [table[CURVE].drop_duplicates() for table in tables]
    if keys[0].merge(keys[1], on=CURVE).empty:
        had = ["; ".join(f"{c} {', '.join(map(str, k[c].unique()[:6]))}" for c in CURVE) for k in keys]
        raise UsageError(
            f"the studies have no curve in common: one has {had[0]}; the other {had[1]}. Compare two of the same "
            "command, with the same --family and prompts with the same labels."
        )
    return Comparison(
        first,
        second,
        _identity(first.about, second.about),
        _claims(first.claims, second.claims),
        _curves(*tables),
        _missing(*keys),
        _missing(*reversed(keys)),
    )


def apart(curves: pd.DataFrame) -> pd.Series:
    """Whether the intervals of two studies do not overlap, for the columns value, lo, hi with _first and _second.

    An unknown interval is apart from none, and values that agree up to rounding are the same.
    """
    gap = (curves["lo_first"] > curves["hi_second"]) | (curves["lo_second"] > curves["hi_first"])
    shown: pd.Series = gap & ~_close(curves, "value")
    return shown


def both(first: Study, second: Study) -> pd.DataFrame:
    """The layers that both studies have of the same curves, the columns of each with _first and _second."""
    return _layers(first).merge(_layers(second), on=[*CURVE, "layer"], suffixes=("_first", "_second"))


def _close(curves: pd.DataFrame, column: str) -> Any:
    """Whether a number is the same in both studies up to rounding; two missing ones are."""
    one, two = (curves[f"{column}_{which}"].to_numpy(dtype="float64") for which in ("first", "second"))
    return np.isclose(one, two, rtol=ROUNDING, atol=1e-12, equal_nan=True)


def _layers(study: Study) -> pd.DataFrame:
    table = study.tables.get(LAYERS)
    if table is None or not set(LAYERS_COLUMNS) <= set(table.columns):
        raise UsageError(
            f"{study.title!r} has no table of layers to compare (it has {', '.join(study.tables) or 'none'}); "
            "give studies of `interp scan` or `interp sensitivity`."
        )
    return table[list(LAYERS_COLUMNS)]


def _missing(keys: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The curves that the other study does not have."""
    found = keys.merge(other, on=CURVE, how="left", indicator=True)
    return found.loc[found["_merge"] == "left_only", CURVE].reset_index(drop=True)


def _identity(first: dict[str, str], second: dict[str, str]) -> tuple[Changed, ...]:
    fields = dict.fromkeys([*first, *second])
    found = (Changed(f, first.get(f, UNKNOWN), second.get(f, UNKNOWN)) for f in fields)
    return tuple(c for c in found if c.first != c.second)


def _claims(first: tuple[Claim, ...], second: tuple[Claim, ...]) -> tuple[ClaimPair, ...]:
    several = {key for claims in (first, second) for key, n in Counter(map(_key, claims)).items() if n > 1}
    one, two = (_by_name(claims, several) for claims in (first, second))
    return tuple(ClaimPair(name, one.get(name), two.get(name)) for name in dict.fromkeys([*one, *two]))


def _key(claim: Claim) -> tuple[str, str, str]:
    return claim.locator, claim.family, claim.position


def _by_name(claims: tuple[Claim, ...], several: set[tuple[str, str, str]]) -> dict[str, Claim]:
    named: dict[str, Claim] = {}
    for claim in claims:
        model = f", {claim.provenance.get('model', 'a model')}" if _key(claim) in several else ""
        name = f"{claim.locator} ({claim.family}, {claim.position}{model})"
        number = 2
        while name in named:
            name, number = f"{name.partition(' no. ')[0]} no. {number}", number + 1
        named[name] = claim
    return named


def _curves(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    merged = first.merge(second, on=[*CURVE, "layer"], suffixes=("_first", "_second"))
    merged["apart"] = apart(merged)
    merged["identical"] = np.all([_close(merged, column) for column in _SHOWN], axis=0)
    merged["difference"] = merged["value_second"] - merged["value_first"]
    sizes = pd.concat([first, second]).groupby(CURVE)["layer"].nunique().to_dict()
    rows = []
    for key, curve in merged.groupby(CURVE, sort=False):
        clear = curve[curve["apart"]]
        best = clear.sort_values("difference", key=abs).iloc[-1] if len(clear) else None
        rows.append(
            {
                **dict(zip(CURVE, key, strict=True)),
                "layers": len(curve),
                "apart": len(clear),
                "identical": bool(curve["identical"].all()) and len(curve) == sizes[key],
                "layer": pd.NA if best is None else int(best["layer"]),
                **{k: np.nan if best is None else float(best[v]) for k, v in _BEST.items()},
            }
        )
    columns = [*CURVE, "layers", "apart", "identical", "layer", *_BEST]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})
