"""Dose curves: what changes when only the guide's weight, its layers or the number of steps does."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from analyses.cross_modal.transfer import DSR, EXCESS, OVER_REFUSAL
from analyses.tga.groups import NAMED, NO_GUIDE, RETRIEVED, Group, without_guide
from analyses.tga.runs import BEFORE, Run
from analyses.tga.tables import ALIGNMENT, ODDS_GAP, on_pictures
from interp.study import ranges

WEIGHT, LAYERS, STEPS = "weight", "layers", "steps"
DOSES = (WEIGHT, LAYERS, STEPS)
SHOWN = (DSR, OVER_REFUSAL, EXCESS, NAMED, ODDS_GAP, ALIGNMENT)
COLUMNS = ["dose", "of", "at", "measure", "value", "lo", "hi", "n", "seeds"]


def dose_table(groups: Sequence[Group], variants: pd.DataFrame) -> pd.DataFrame:
    """Every curve of at least two doses, from nothing upwards.

    Nothing of the guide, by weight or by layers, is captioning with the same prompt; no step is the model as it was.
    Either is part of a curve only where it was measured, and makes none by itself.

    Args:
        groups: trainings that were compared.
        variants: their measures, of `analyses.tga.tables.variants_table`.

    Returns:
        dose (weight, layers or steps), of (what the trainings of a curve have in common), at (the dose; layers are in
        the order of their number), measure, value, lo, hi, n, seeds; on pictures, by the first judge.
    """
    shown = on_pictures(variants)
    shown = shown[shown["measure"].isin(SHOWN)]
    parts = [
        shown[shown["group"] == group.name].assign(dose=dose, of=of, at=at)[COLUMNS]
        for dose in DOSES
        for of, curve in _curves(groups, dose)
        for at, group in curve
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _curves(groups: Sequence[Group], dose: str) -> Iterator[tuple[str, list[tuple[str, Group]]]]:
    alike: dict[tuple[str, tuple[tuple[str, str], ...]], list[Group]] = {}
    for group in groups:
        run = group.first.run
        # Steps are a dose of captioning too; without its curve more steps would pass for more guide. With patience it
        # is not the plan that says how many were made.
        if run.guides or (dose == STEPS and run.folder and not run.patience):
            alike.setdefault((run.told(without=dose), tuple(run.besides(dose).items())), []).append(group)
    for (of, _), members in alike.items():
        if len(members) > 1:
            ordered = sorted(members, key=lambda g: _amount(g.first.run, dose))
            curve = [(_told(g.first.run, dose), g) for g in ordered]
            nothing = _nothing(members[0], groups, dose)
            yield of, curve if nothing is None else [("0", nothing), *curve]


def _amount(run: Run, dose: str) -> float:
    """Of layers their number; all of them are the most."""
    return float({WEIGHT: run.weight, LAYERS: len(run.layers) or math.inf, STEPS: run.steps}[dose])


def _told(run: Run, dose: str) -> str:
    layers = ranges(run.layers) if run.layers else "all"
    return {WEIGHT: f"{run.weight:g}", LAYERS: layers, STEPS: str(run.steps)}[dose]


def _nothing(member: Group, groups: Sequence[Group], dose: str) -> Group | None:
    """The training that has nothing of a curve's dose."""
    if dose == STEPS:
        return next((g for g in groups if g.first.run.variant == BEFORE), None)
    return without_guide(member, groups, RETRIEVED if member.first.run.retrieved_in_prompt else NO_GUIDE)
