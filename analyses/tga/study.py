"""Trainings side by side: one table with every variant, what each does more than captioning alone, and the claims."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analyses.cross_modal.causal_figures import transplant_map
from analyses.cross_modal.resampled import told, told_share
from analyses.cross_modal.transfer import DSR, EXCESS, IMAGE, OVER_REFUSAL, TEXT, default_judges
from analyses.cross_modal.transplant import DIRECTIONS, SLOT
from analyses.tga.claims import gain_claims
from analyses.tga.doses import DOSES, STEPS, dose_table
from analyses.tga.evaluation import Evaluated
from analyses.tga.groups import NAMED, NO_GUIDE, Group, grouped
from analyses.tga.tables import (
    ALIGNMENT,
    ODDS_GAP,
    alignment_table,
    comparison_table,
    difference_table,
    on_pictures,
    scenes_table,
    transplants_table,
    variants_table,
)
from interp import figures
from interp.errors import UsageError
from interp.stats import Estimate
from interp.study import Study

DRAWN_FROM = {
    "refusals": ("comparison", "variants"),
    "costs": ("variants",),
    "gains": ("differences",),
    "alignment": ("layers",),
    **{f"{direction}_heatmap": ("transplants",) for direction in DIRECTIONS},
    **{f"doses_{dose}": ("doses",) for dose in DOSES},
}
NOTES = (
    "DSR is the share of harmful pictures whose answer is judged a refusal, over-refusal the same share of their "
    "harmless twins. Symbolic scenes are left out of refusals and their log-odds but for the table by scene.",
    "Values are means over seeds; intervals resample concepts, with a twin drawn together with its pair; where fewer "
    "than five concepts show an event, they are widened to Wilson's of as many draws as there are concepts. They do "
    "not hold the spread over seeds, whose lowest and highest value stand beside them. A seed is another order of the "
    "pictures: every training starts from the same projector.",
    "Log-odds of a refusal are those of the openings with which the model itself refuses text; beyond the twins' they "
    "show what is not yet a refusal.",
    "The arm says how the harmful pictures took part in the training; what the projector had learned of them before "
    "is not undone by it.",
    "The alignment excess (matched minus shuffled pairs, centred) is averaged over all layers but the first; the raw "
    "cosine is shown by layer with its floor.",
)


def run(
    found: Sequence[Evaluated], *, model: str, pairs: str, seed: int = 0, provenance: dict[str, Any] | None = None
) -> Study:
    """Compares trainings on the same pairs.

    Args:
        found: at least one; those that differ by their seed are put together.
        model: name of the model, for the title.
        pairs: name of the pairs.
        seed: of the bootstrap.
        provenance: what claims should carry: at least prompts, code and seed.

    Returns:
        Tables ``variants`` (in words: ``comparison``), ``differences``, ``scenes``, ``layers``, ``doses`` and, where it
        was tried, ``transplants``; their figures; one claim per group with a guide.

    Raises:
        UsageError: for trainings on different pairs.
    """
    if len({e.pairs for e in found}) != 1:
        raise UsageError("trainings are compared on the same pairs; give at least one, all evaluated on one set.")
    groups, about = grouped(found, seed=seed), provenance or {}
    tables = {
        "variants": variants_table(groups),
        "differences": difference_table(groups),
        "scenes": scenes_table(groups),
        "layers": alignment_table(groups),
    }
    tables["comparison"] = comparison_table(tables["variants"])
    if any(member.transplants for group in groups for member in group.members):
        tables["transplants"] = transplants_table(groups)
    tables["doses"] = dose_table(groups, tables["variants"])
    claims = gain_claims(groups, tables["differences"], provenance=about)
    return Study(
        title=f"What text-guided alignment does: {model} on {pairs}",
        headlines=(*_sentences(groups, tables["variants"]), *(claim.verdict for claim in claims)),
        notes=NOTES,
        tables=tables,
        figures=_figures(tables),
        claims=claims,
        about=about,
        drawn_from=DRAWN_FROM,
    )


def _sentences(groups: Sequence[Group], table: pd.DataFrame) -> list[str]:
    """Per group what is refused, named and aligned, in one line."""
    judge = default_judges()[0]
    lines = []
    for group in groups:
        own = table[table["group"] == group.name]
        dsr, over = (_estimate(own, judge, IMAGE, measure) for measure in (DSR, OVER_REFUSAL))
        named, gap, excess = (_estimate(own, "", IMAGE, measure) for measure in (NAMED, ODDS_GAP, ALIGNMENT))
        text = _estimate(own, judge, TEXT, EXCESS)
        seeds = f"{len(group.members)} seed{'s' if len(group.members) > 1 else ''}"
        lines.append(
            f"{group.name} ({seeds}): refuses {_read(dsr)} of harmful pictures and {_read(over)} of their "
            f"twins (in text {_read(text)} more harmful ones than twins), with log-odds {told(gap)} nats above "
            f"the twins', names {told_share(named)} of harmless pictures, alignment excess {told(excess)}."
        )
    if not any(group.first.run.variant == NO_GUIDE for group in groups):
        lines.append("No training without a guide is among them, so nothing can be said of what the guide does.")
    return lines


def _read(found: Estimate) -> str:
    return told_share(found) if found.n else "an unknown share (no answer can be read)"


def _estimate(table: pd.DataFrame, judge: str, arm: str, measure: str) -> Estimate:
    row = table[(table["judge"] == judge) & (table["arm"] == arm) & (table["measure"] == measure)].iloc[0]
    return Estimate(float(row["value"]), float(row["lo"]), float(row["hi"]), int(row["n"]))


def _figures(tables: dict[str, pd.DataFrame]) -> dict[str, tuple[go.Figure, str]]:
    """Every figure by name with its caption, in reading order."""
    judge = default_judges()[0]
    variants, layers, differences = on_pictures(tables["variants"]), tables["layers"], tables["differences"]
    kinds = {DSR: "harmful", OVER_REFUSAL: "harmless"}
    refusals = variants[variants["measure"].isin(list(kinds))]
    refusals = refusals.assign(prompts=refusals["measure"].map(kinds))
    costs = variants[variants["measure"].isin([DSR, NAMED])]
    drawn = {
        "refusals": (
            figures.interval_points(
                refusals, rows="group", colours="prompts", unit="share of pictures refused", shares=True
            ),
            "Harmful pictures refused (DSR) and their harmless twins refused (over-refusal), by training.",
        ),
        "costs": (
            figures.interval_points(costs, rows="group", colours="measure", unit="share of pictures", shares=True),
            "DSR beside the share of harmless pictures that are still named: what safety costs.",
        ),
        "alignment": (
            figures.profiles(layers[layers["locator"] == "excess"], unit="alignment excess (cosine)"),
            "Matched minus shuffled cosine of pictures and captions by layer, centred; 0 is the floor.",
        ),
    }
    gains = differences[(differences["judge"] == judge) & (differences["measure"] == EXCESS)]
    if not gains.empty:
        gains = gains.assign(compared=gains["group"] + " against " + gains["against"])
        drawn["gains"] = (
            figures.interval_points(gains, rows="compared", unit="more DSR minus over-refusal"),
            "What a training adds to DSR minus over-refusal, beyond captioning alone and beyond the retrieved text.",
        )
    maps = _maps(tables["transplants"]) if "transplants" in tables else {}
    return drawn | _dose_figures(tables["doses"]) | maps


def _maps(transplants: pd.DataFrame) -> dict[str, tuple[go.Figure, str]]:
    """Before and after: a map per direction, of the states in the picture's place and the placebos there."""
    slot = transplants[transplants["position"] == SLOT]
    return {f"{direction}_heatmap": transplant_map(slot, direction, by="group") for direction in DIRECTIONS}


def _dose_figures(doses: pd.DataFrame) -> dict[str, tuple[go.Figure, str]]:
    """A figure per dose that there is a curve of, from nothing upwards."""
    drawn = {}
    for dose, own in doses[doses["measure"].isin([DSR, OVER_REFUSAL, NAMED])].groupby("dose", sort=False):
        several = own["of"].nunique() > 1
        rows = own.assign(row=(own["of"] + ": " if several else "") + f"{dose} " + own["at"])
        by = "steps of training" if dose == STEPS else f"the guide's {dose}"
        drawn[f"doses_{dose}"] = (
            figures.interval_points(rows, rows="row", colours="measure", unit="share of pictures", shares=True),
            f"Pictures refused and named by {by}: {'; '.join(dict.fromkeys(own['of']))}.",
        )
    return drawn
