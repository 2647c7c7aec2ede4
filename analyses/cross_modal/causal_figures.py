"""Figures of ladder, transplants and transfer, each from the tables of the study."""

from typing import Any

import pandas as pd

from analyses.cross_modal.completeness import COMPLETENESS, EFFECT
from analyses.cross_modal.ladder import LOG_ODDS, MOVED, UNITS
from analyses.cross_modal.transfer import ARMS, DSR, EFFICIENCY, OVER_REFUSAL
from analyses.cross_modal.transplant import DIRECTIONS, SUFFICIENCY
from interp import figures
from interp.figures import HOW_TO_READ

DRAWN_FROM = {
    "transfer_heatmap": ("transfer",),
    "efficiency": ("transfer",),
    "placement_heatmap": ("placements", "placed"),
    "ladder": ("ladder", "ladder_steps"),
    "ladder_heatmap": ("ladder_moved",),
    **{f"{direction}_heatmap": ("transplants", "transplant_arms", "transplant_answers") for direction in DIRECTIONS},
}
WHAT_IS_PUT_IN = {
    SUFFICIENCY: "the caption's states put into the image run: how much of the way to the caption's refusal is gone",
    "necessity": "the image's states put into the caption run: how much of the caption's refusal is lost",
}


def drawn(tables: dict[str, pd.DataFrame]) -> dict[str, tuple[Any, str]]:
    """The figures by name, in reading order, each with its caption."""
    found = {
        "transfer_heatmap": (
            _shares(_rates(tables["transfer"]), "scene", "arm", "share of answers"),
            "DSR on harmful pairs and over-refusal on their twins, by scene and arm, as the first judge has it; the "
            "worst scene first. Wilson intervals on hover. A star marks scenes shown by a symbol only.",
        ),
        "placement_heatmap": (
            _shares(_placed(tables["placements"]), "scene", "place", "share of pictures"),
            "Why harmful pictures were not refused, by scene. Wilson intervals on hover.",
        ),
        "ladder": (
            figures.interval_points(
                tables["ladder"][tables["ladder"]["measure"] == LOG_ODDS], rows="rung", unit="refusal log-odds, nats"
            ),
            "The same question from no image to the real picture: log-odds of a refusal, with intervals over concepts. "
            "The question alone, and a zero image of one size, are one prompt each and have no spread.",
        ),
        "ladder_heatmap": (
            figures.layer_heatmap(tables["ladder_moved"], rows="rung", unit=UNITS[MOVED]),
            "How far the state at t_post is from that of the question alone, by rung and layer, as a share of its "
            f"norm. {HOW_TO_READ}",
        ),
    }
    efficiency = _efficiencies(tables["transfer"])
    if len(efficiency):
        found["efficiency"] = (
            figures.interval_points(efficiency, rows="scene", unit="efficiency", colours="arm"),
            "Transfer efficiency against the text arm, worst scene first; scenes without a number are left out, and "
            "the table says why.",
        )
    for direction in DIRECTIONS:
        found[f"{direction}_heatmap"] = transplant_map(tables["transplants"], direction)
    return found


def transplant_map(transplants: pd.DataFrame, direction: str, *, by: str = "position") -> tuple[Any, str]:
    """Completeness by position (or another column), source and layer; the effect in nats where it has no number."""
    own = transplants[transplants["direction"] == direction]
    fractions = own[own["measure"] == COMPLETENESS]
    whole = bool(fractions["value"].notna().any())
    chosen = fractions if whole else own[own["measure"] == EFFECT]
    table = chosen.assign(what=chosen[by] + ", " + chosen["source"])
    unit = "completeness" if whole else "nats"
    why = "" if whole else " The two arms do not differ, so there is no fraction; the effect is shown."
    return (
        figures.layer_heatmap(table, rows="what", unit=unit),
        f"{direction.capitalize()}: {WHAT_IS_PUT_IN[direction]}, by {by}, whose states are put in, and layer; "
        f"all but the first row of every {by} are placebos.{why} {HOW_TO_READ}",
    )


def _rates(transfer: pd.DataFrame) -> pd.DataFrame:
    first = transfer[transfer["judge"] == transfer["judge"].iloc[0]]
    own: pd.DataFrame = first[first["measure"].isin([DSR, OVER_REFUSAL])]
    own = own.assign(arm=own["arm"] + ", " + own["measure"], scene=_starred(own))
    # The figure keeps rows and columns as they first appear: scenes are worst first already, arms are not in order.
    columns = [f"{arm}, {measure}" for arm in ARMS for measure in (DSR, OVER_REFUSAL)]
    parts = [own[own["arm"] == column] for column in columns]
    return pd.concat(parts, ignore_index=True)


def _placed(placements: pd.DataFrame) -> pd.DataFrame:
    starred: pd.DataFrame = placements.assign(scene=_starred(placements))
    return starred


def _efficiencies(transfer: pd.DataFrame) -> pd.DataFrame:
    first = transfer[transfer["judge"] == transfer["judge"].iloc[0]]
    own: pd.DataFrame = first[(first["measure"] == EFFICIENCY) & first["value"].notna()]
    return own.assign(scene=_starred(own))


def _starred(table: pd.DataFrame) -> pd.Series:
    star: pd.Series = table["scene"] + table["symbolic"].map({True: " *", False: ""})
    return star


def _shares(table: pd.DataFrame, row: str, column: str, unit: str) -> Any:
    """Shares as a labelled matrix, with n and intervals on hover."""
    text = [f"{value:.0%}" if value == value else "" for value in table["value"]]
    hover = [
        f"{share or 'no readable answer'} [{r['lo']:.0%}, {r['hi']:.0%}], n = {r['n']}"
        for share, r in zip(text, table.to_dict("records"), strict=True)
    ]
    return figures.matrix(table.assign(text=text, hover=hover), row=row, column=column, unit=unit)
