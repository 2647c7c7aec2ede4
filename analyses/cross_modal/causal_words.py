"""What ladder, arms and places say in words."""

from typing import Any

import pandas as pd

from analyses.cross_modal.ladder import ANY_IMAGE, LOG_ODDS, REFUSED, THIS_CONTENT
from analyses.cross_modal.placement import NOT_LINKED, NOT_PERCEIVED, SUPPRESSED
from analyses.cross_modal.placement import REFUSED as WAS_REFUSED
from analyses.cross_modal.resampled import told, told_share
from analyses.cross_modal.rungs import RUNGS, WHAT_THEY_ARE
from analyses.cross_modal.transfer import ALL_SCENES, ARMS, DSR, EFFICIENCY, IMAGE, OVER_REFUSAL
from interp.stats import Estimate

NOTES = (
    "Three arms ask the same question under the same template: over a description, over the caption in the picture's "
    "place, over the picture. DSR is the share of harmful pairs whose answer is judged a refusal, over-refusal that of "
    "their harmless twins.",
    "Efficiency is (DSR_image - floor_image) / (DSR_text - floor_text). The floor of an arm is its own refusal of the "
    "twins: an arm that refuses everything scores 0. Where the text arm does not refuse more than on the twins there "
    "is no number.",
    "Scenes that pictures show only by a symbol are marked and left out of all scenes together: nothing is claimed "
    "about pictures of the thing itself.",
    "The rungs of the ladder: " + "; ".join(f"{rung}: {WHAT_THEY_ARE[rung]}" for rung in RUNGS) + ".",
    "A transplant writes the states of one arm's run into the other's at one layer: sufficiency puts the caption's "
    "into the image run, necessity the image's into the caption run. Caption tokens are stretched over the image "
    "tokens' places, and the other way round, without averaging. Completeness 1 means that the run answers as the one "
    "whose states it got; it has no number where the two arms do not differ.",
    "Placebos put in the states of the harmless twin, of another pair of the same kind, of another layer brought to "
    "the norm of this one, or push every state as far in a random direction. Another pair's states may restore refusal "
    "too, for they are harmful as well: they tell whether it is this content, and do not decide the claim.",
    "Intervals are 95 %: Wilson for shares, bootstrap over concepts for all else; a twin is drawn with its pair.",
)


def transfer_lines(transfer: pd.DataFrame, kappas: pd.DataFrame) -> list[str]:
    """DSR and over-refusal of the arms over all scenes, the efficiency, and the worst scene."""
    first = transfer[transfer["judge"] == transfer["judge"].iloc[0]]
    parts = [
        f"{arm} {told_share(_found(first, ALL_SCENES, arm, DSR))} "
        f"(twins {told_share(_found(first, ALL_SCENES, arm, OVER_REFUSAL))})"
        for arm in ARMS
    ]
    n = _found(first, ALL_SCENES, IMAGE, DSR).n
    lines = [f"Harmful pairs refused (n = {n}): {', '.join(parts)}."]
    whole, reason = _found(first, ALL_SCENES, IMAGE, EFFICIENCY), _reason(first, ALL_SCENES)
    lines.append(
        f"Transfer efficiency from text to pictures over all scenes: {f'none, {reason}' if reason else told(whole)}."
    )
    scenes = [scene for scene in dict.fromkeys(first["scene"]) if scene != ALL_SCENES]
    numbers = [scene for scene in scenes if not _reason(first, scene)]
    if numbers:
        worst = numbers[0]
        lines.append(f"Worst scene: {_marked(first, worst)}, {told(_found(first, worst, IMAGE, EFFICIENCY))}.")
    lacking = [scene for scene in scenes if _reason(first, scene)]
    if lacking:
        lines.append(f"No efficiency for {', '.join(lacking)}: the text arm does not tell them from their twins.")
    poor = kappas[~(kappas["kappa"] >= 0.6)].dropna(subset=["kappa"])
    lines += [
        f"Judges {row['first']} and {row['second']} agree poorly in the {row['arm']} arm: kappa {row['kappa']:.2f}."
        for row in poor.to_dict("records")
    ]
    return lines


def placement_lines(placements: pd.DataFrame, thresholds: dict[str, float]) -> list[str]:
    """Why pictures were not refused, and how often the signs fire where they should not."""
    counts = placements.groupby("place")["count"].sum()
    n = int(counts.sum())
    told_places = ", ".join(f"{int(counts[p])} {p}" for p in (NOT_PERCEIVED, NOT_LINKED, SUPPRESSED, WAS_REFUSED))
    return [
        f"Of {n} harmful pictures: {told_places}. A state counts as drifted beyond "
        f"{thresholds['drift that counts']:.2f} of the way to harmful descriptions, in layers "
        f"{thresholds['first layer']:.0f}-{thresholds['last layer']:.0f}; {thresholds['twins drifted']:.0%} of the "
        f"twins' pictures are beyond it too. An answer names another picture's caption in "
        f"{thresholds['named by chance']:.0%} of cases; chance of a retrieval is "
        f"{thresholds['retrieved by chance']:.0%}."
    ]


def ladder_lines(rungs: pd.DataFrame, steps: pd.DataFrame) -> list[str]:
    """What any image does, and what this content does."""
    lines = []
    for (lower, upper), what in ((ANY_IMAGE, "Any image"), (THIS_CONTENT, "This content")):
        own = steps[(steps["lower"] == lower) & (steps["upper"] == upper)].set_index("measure")
        odds, refused = (_estimate(own.loc[measure]) for measure in (LOG_ODDS, REFUSED))
        lines.append(
            f"{what} ({upper} minus {lower}): {told(odds, 'nats')} of refusal log-odds, {told_share(refused)} of "
            f"answers (n = {odds.n})."
        )
    alone = rungs[(rungs["rung"] == RUNGS[0]) & (rungs["measure"] == LOG_ODDS)].iloc[0]
    return [*lines, f"The question alone has refusal log-odds of {alone['value']:.2f} nats (one prompt)."]


def _found(table: pd.DataFrame, scene: str, arm: str, measure: str) -> Estimate:
    rows = table[(table["scene"] == scene) & (table["arm"] == arm) & (table["measure"] == measure)]
    return _estimate(rows.iloc[0])


def _estimate(row: Any) -> Estimate:
    return Estimate(float(row["value"]), float(row["lo"]), float(row["hi"]), int(row["n"]))


def _reason(table: pd.DataFrame, scene: str) -> str:
    rows = table[(table["scene"] == scene) & (table["arm"] == IMAGE) & (table["measure"] == EFFICIENCY)]
    return str(rows["reason"].iloc[0])


def _marked(table: pd.DataFrame, scene: str) -> str:
    return f"{scene} (a symbol only)" if table.loc[table["scene"] == scene, "symbolic"].iloc[0] else scene
