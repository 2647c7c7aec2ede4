"""The bench of locators as a study: who finds what was planted, and who cries where nothing was."""

from typing import Any

import pandas as pd

from analyses.bench_scores import ALL, NEAR, TOOK, claim_scores, locator_scores, taken
from analyses.locator_bench import HIDDEN, SPELLED, Bench
from interp import figures
from interp.study import Study

COLUMNS = (
    (ALL, "hits", "within a layer: all plants"),
    (SPELLED, "hits", "spelled plants"),
    (HIDDEN, "hits", "hidden plants"),
    (ALL, "alarms", "false alarms: nulls"),
    (ALL, "alarms_exchanged", "false alarms: labels exchanged"),
)
DRAWN_FROM = {"hits_heatmap": ("scores",), "placements": ("curves",), "claims_heatmap": ("claims_by_kind",)}


def study(found: Bench, *, model: str, prompts: str, top_layer: int, about: dict[str, Any]) -> Study:
    """The report of a bench.

    Args:
        found: of `analyses.locator_bench.run`.
        model: its name.
        prompts: of the bed.
        top_layer: L.
        about: what was run.

    Returns:
        Tables ``scores``, ``claims_by_kind``, ``curves`` and ``claims``, with figures of the first three. A bench makes
        no claims of its own.
    """
    scores, claims = locator_scores(found.curves), claim_scores(found.claims)
    return Study(
        title=f"Do the locators find what was planted? {model} on {prompts}",
        headlines=tuple(_sentences(found, scores, claims, model)),
        notes=_notes(),
        tables={"scores": scores, "claims_by_kind": claims, "curves": found.curves, "claims": found.claims},
        figures=_figures(found, scores, claims, top_layer),
        claims=(),
        about={key: str(value) for key, value in about.items()},
        drawn_from=DRAWN_FROM,
    )


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per locator as texts: hits with their interval, median error, false alarms of both kinds."""
    rows = []
    for locator, own in scores.groupby("locator", sort=False):
        kinds = {row["kind"]: row for row in own.to_dict("records")}
        rows.append(
            {"locator": locator, "within a layer, %": _percent(kinds[ALL], "hits"),
             "spelled": _percent(kinds[SPELLED], "hits"), "hidden": _percent(kinds[HIDDEN], "hits"),
             "median error": _number(kinds[ALL]["error"]),
             "false alarms on nulls, %": _percent(kinds[ALL], "alarms"),
             "labels exchanged": _percent(kinds[ALL], "alarms_exchanged")}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _sentences(found: Bench, scores: pd.DataFrame, claims: pd.DataFrame, model: str) -> list[str]:
    plants = found.claims[found.claims["layer"].notna()]
    took = taken(plants)
    nulls = found.claims[found.claims["layer"].isna()]
    lines = [
        f"A refusal was planted {len(plants)} times in {model}, each time at one layer. {len(took)} plants took: what "
        f"carries them is refused at least {TOOK:.0%} more often than what does not; the others are left out. "
        f"{len(nulls)} nulls hold no refusal."
    ]
    ranked = scores[scores["kind"] == ALL].sort_values("hits", ascending=False, kind="stable")
    lines += [
        f"{row['locator']} comes within {NEAR} layer of {_percent(row, 'hits')} % of the plants (median error "
        f"{_number(row['error'])} layers); it separates the kinds on {_percent(row, 'alarms')} % of the nulls."
        for row in ranked.head(3).to_dict("records")
    ]
    by_kind = claims.set_index("cases")
    established = int(nulls["established"].sum())
    passed = int(nulls["patches"].sum())
    lines.append(
        f"The claim that a layer decides is made on {established} of {len(nulls)} nulls; were all of them taken to "
        f"refuse harmful prompts alone, so that patches and their controls decide, on {passed}."
    )
    full = by_kind.iloc[0]
    if full["established_n"]:
        lines.append(
            f"Where the plant makes every harmful prompt refused it is made on {_percent(full, 'established')} % of "
            f"{full['established_n']:.0f}, and its range comes within {NEAR} layer of the plant in "
            f"{_percent(full, 'right')} % of those whose patches pass."
        )
    return lines


def _notes() -> tuple[str, ...]:
    return (
        "A plant writes a vector into the stream at t_post of one layer on harmful prompts (all of them, or half); a "
        "reader at the last layer says words of a refusal family wherever the stream lies beyond a threshold along it. "
        "It is one, two or four times as strong as it must be for the last layer to tell who carries it. Spelled "
        "plants point the way of the words, so that a lens can read them at once; hidden ones a random way.",
        "A locator finds a plant when its onset is within a layer of it and its curve separates the two kinds at all. "
        "Plants lie at known layers of a model that may know of harm long before: a locator that reads harm has its "
        "onset where that is, and misses.",
        "Nulls: the model as it is, on half of the twins, where harm may be known but nothing is refused; and with the "
        "two labels of every twin exchanged at random, the model said to have refused what is now called harmful. A "
        "false alarm is a curve that separates. The first kind is no error of a locator that means to read harm.",
        "Patching was done at every second layer, so that an onset can be a layer late. Shares have Wilson intervals.",
    )


def _figures(found: Bench, scores: pd.DataFrame, claims: pd.DataFrame, top_layer: int) -> dict[str, tuple[Any, str]]:
    planted = taken(found.curves)
    planted = planted[planted["layer"].notna()]
    return {
        "hits_heatmap": (
            figures.matrix(_cells(scores), row="locator", column="cases", unit="hits (+), false alarms (-)"),
            "Share of the cases in per cent, with 95 % intervals. Red: the plants a locator found within a layer. "
            "Blue: the nulls on which it separates although nothing was planted.",
        ),
        "placements": (
            figures.placements(planted, panel="locator", kind="kind", layers=(0, top_layer), near=NEAR),
            "Where every locator has its onset, against where the refusal was planted. In the grey band it is found. "
            "A row of points at one height is a locator that points at the same layer whatever was planted.",
        ),
        "claims_heatmap": (
            figures.matrix(_claim_cells(claims), row="cases", column="share", unit="share of cases"),
            "How often a layer of decision is claimed; how often all controls of the patches pass, whatever the model "
            "does; and how often the range then holds the plant within a layer.",
        ),
    }  # fmt: skip


def _cells(scores: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for kind, rate, title in COLUMNS:
        for row in scores[scores["kind"] == kind].to_dict("records"):
            sign = 1 if rate == "hits" else -1
            rows.append(_cell(row, rate, sign) | {"locator": row["locator"], "cases": title})
    return pd.DataFrame(rows)


def _claim_cells(claims: pd.DataFrame) -> pd.DataFrame:
    names = (("established", "claimed"), ("patches", "patches pass"), ("right", "range is right"))
    return pd.DataFrame(
        [
            _cell(row, rate, 1) | {"cases": row["cases"], "share": title}
            for rate, title in names
            for row in claims.to_dict("records")
            if row[f"{rate}_n"]
        ]
    )


def _cell(row: Any, rate: str, sign: int) -> dict[str, Any]:
    text = _percent(row, rate)
    return {"value": sign * row[rate], "text": text, "hover": f"{text} %, n = {row[f'{rate}_n']:.0f}"}


def _percent(row: Any, rate: str) -> str:
    """Such as 55 [41, 68]."""
    if not row[f"{rate}_n"]:
        return "–"
    return "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * row[name] for name in (rate, f"{rate}_lo", f"{rate}_hi")))


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"
