"""Every locator, and the claim, on plants whose layer is known and on nulls that hold none.

Nulls are of two kinds: the model as it is, where harm may be known but nothing is refused; and the labels of every
twin exchanged at random, with the model said to refuse just those called harmful, where there is nothing to know and
only the patches can keep a claim from being made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.decision import BEHAVIOUR, decision_claim
from analyses.locators.causal_patch import PatchEffects, patch_effects
from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.panel import Vocabulary, probe_curve, reading_curves, state_curves, tuned_curve
from analyses.plant_edits import LAST
from analyses.planted import Bed, Plant, Planted
from analyses.sample import Sample
from interp.cache.derived import keep_json, kept_json
from interp.lens import TunedLens
from interp.stats import group_codes, shuffled_labels
from probes.splits import by_group

FOLDS = 5
PATCHED = 8
"""Twins that are patched."""
STRENGTHS = (1.0, 2.0, 4.0)
"""Of plants, as multiples of the least strength that lasts; see `analyses.planted.Bed.lasting`."""
COVERAGES = (0.5, 1.0)
NULL, SHUFFLED = "null", "null, labels exchanged"
SPELLED, HIDDEN = "spelled", "hidden"
KNOWN = ("case", "kind", "family", "layer", "strength", "coverage", "took")
CURVES = (*KNOWN, "locator", "onset", "lo", "hi", "height", "height_lo", "separates")
CLAIMS = (*KNOWN, "established", "patches", "failed", "lo", "hi")
NUMBERS = ("layer", "strength", "coverage", "took", "onset", "lo", "hi", "height", "height_lo")
DECIDED_BY = (
    *("interp.causal", "interp.models", "interp.lens", "interp.prompts", "interp.stats", "probes"),
    *(
        "analyses.locators",
        "analyses.panel",
        "analyses.planted",
        "analyses.plant_edits",
        "analyses.locator_bench",
        "analyses.decision",
    ),
    *("analyses.readings", "analyses.sample"),
)
"""The code that decides a case; one made by other code is run again."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One plant, or one null.

    Attributes:
        name: unique.
        kind: spelled, hidden, or one of the nulls.
        family: whose words are watched, and said by the plant.
        plant: None for a null.
        seed: of the draw of twins, and of everything else.
    """

    name: str
    kind: str
    family: str
    plant: Plant | None
    seed: int


def cases(n_layers: int, families: Sequence[str], *, plants: int = 40, nulls: int = 40, seed: int = 0) -> list[Case]:
    """Plants over layers, strengths and families, half of them spelled; nulls of both kinds.

    Args:
        n_layers: blocks L of the model; layers 2 to L - 2 are planted, evenly spread, in random order.
        families: to take turns.
        plants: how many.
        nulls: how many, half of each kind.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    layers = rng.permutation(np.linspace(2, n_layers - 2, plants).round().astype(int))
    found = []
    for i, layer in enumerate(layers):
        spelled = i % 2 == 0
        strength, coverage = STRENGTHS[i % len(STRENGTHS)], COVERAGES[i // 2 % len(COVERAGES)]
        plant = Plant(int(layer), strength, spelled, coverage, seed=seed + i)
        found.append(Case(f"plant {i}", SPELLED if spelled else HIDDEN, families[i % len(families)], plant, seed + i))
    for i in range(nulls):
        kind = NULL if i % 2 == 0 else SHUFFLED
        found.append(Case(f"null {i}", kind, families[i % len(families)], None, seed + i))
    return found


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench gave.

    Attributes:
        curves: one row per case and locator: case, kind, family, layer, strength, coverage, took (share of the prompts
            that carry the plant on which the model says the words, minus that of all others), locator, onset, lo, hi
            (missing: never), height, height_lo, separates (the height's simultaneous interval lies above what the
            locator gives where nothing separates).
        claims: one row per case: the same first columns, established, patches (whether all controls passed but those
            of behaviour), failed (the names of those that did not), lo and hi of the range claimed.
    """

    curves: pd.DataFrame
    claims: pd.DataFrame


def run(
    bed: Bed,
    chosen: Sequence[Case],
    vocabularies: dict[str, Vocabulary],
    lens: TunedLens | None = None,
    *,
    patched: int = PATCHED,
    folder: Path | None = None,
    stamp: dict[str, Any] | None = None,
    progress: Progress = lambda *_: None,
) -> Bench:
    """Every locator on every case.

    Args:
        bed: the model.
        chosen: see `cases`.
        vocabularies: by family.
        lens: tuned to the model; without it that readout is left out.
        patched: how many twins are patched, drawn anew for every case.
        folder: where every case is kept as soon as it is done, so that a run that is stopped goes on; None for nowhere.
        stamp: what decides the cases beside themselves; a case kept with another is run again.
        progress: called with (cases done, cases in all).
    """
    curves: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    for done, case in enumerate(chosen, start=1):
        own = {**(stamp or {}), "case": asdict(case), "patched": patched}
        kept = None if folder is None else kept_json(folder, case.name.replace(" ", "_"), own)
        if kept is None:
            kept = _tried(bed, case, vocabularies[case.family], lens, patched)
            if folder is not None:
                keep_json(folder, case.name.replace(" ", "_"), own, kept)
        curves += kept["curves"]
        claims.append(kept["claim"])
        progress(done, len(chosen))
    return Bench(_frame(curves, CURVES), _frame(claims, CLAIMS))


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """A table of some columns in their order; what is missing in a column of numbers is NaN."""
    return pd.DataFrame(rows, columns=list(columns)).astype({c: float for c in columns if c in NUMBERS})


@dataclass(frozen=True, slots=True)
class _Asked:
    """A case as the locators see it.

    Attributes:
        states: (row, layer, d_model) of all prompts of the bed, the plant included.
        sample: with the labels of the case.
        refused: (row,) what the model did, or is said to have done.
        rows: (row,) which prompts the locators are given: all for a plant, those of half of the twins for a null.
    """

    states: Float[Tensor, "row layer d_model"]
    sample: Sample
    refused: Bool[ndarray, " row"]
    rows: Bool[ndarray, " row"]


def _tried(bed: Bed, case: Case, words: Vocabulary, lens: TunedLens | None, patched: int) -> dict[str, Any]:
    """One case, as JSON values."""
    opening = words.lexicon.openings
    planted = None if case.plant is None else bed.put(bed.lasting(case.plant, opening), opening)
    asked = _asked(bed, case, planted, words)
    known = _known(case, planted)
    effects = _patched(bed, case, asked, planted, opening, patched)
    causal = {
        f"causal_patch, {what}": curve_of(seed=case.seed)
        for what, curve_of in (("sufficiency", effects.sufficiency), ("necessity", effects.necessity))
    }
    curves = [*_curves(bed, case, asked, words, lens), *causal.items()]
    return {
        "curves": [{**known, "locator": name, **_found(curve)} for name, curve in curves],
        "claim": {**known, **_claimed(bed, case, asked, effects)},
    }


def _asked(bed: Bed, case: Case, planted: Planted | None, words: Vocabulary) -> _Asked:
    rng, codes = np.random.default_rng(case.seed), group_codes(bed.groups)
    harmful = shuffled_labels(bed.harmful, codes, rng) if case.kind == SHUFFLED else bed.harmful
    labels = np.where(harmful, "harmful", "harmless").astype(object)
    sample = replace(Sample.of(bed.prompts, seed=case.seed), labels=labels)
    if planted is not None:
        return _Asked(planted.states, sample, planted.refused, np.ones(len(codes), dtype=bool))
    units = rng.permutation(int(codes.max()) + 1)
    rows = np.isin(codes, units[: (len(units) + 1) // 2])
    refused = harmful if case.kind == SHUFFLED else bed.log_odds(bed.states[:, -1], words.lexicon.openings) > 0
    return _Asked(bed.states, sample, refused, rows)


def _curves(
    bed: Bed, case: Case, asked: _Asked, words: Vocabulary, lens: TunedLens | None
) -> Iterator[tuple[str, Curve | None]]:
    """The curves of all locators that read; None where a locator says itself that there is nothing to locate."""
    sample, refused = asked.sample.only(asked.rows), asked.refused[asked.rows]
    states = asked.states[torch.from_numpy(np.flatnonzero(asked.rows))]
    contrast = Contrast.of(sample)
    curves, _ = reading_curves(states, bed.layers, contrast, bed.readout, words)
    yield from curves.items()
    if lens is not None:
        curve = tuned_curve(states, bed.layers, contrast, bed.readout, words, lens)
        yield curve.locator, curve
    yield from state_curves(states, bed.layers, contrast).items()
    folds = by_group(sample.groups, FOLDS, seed=case.seed)
    yield "probe", probe_curve(states, bed.layers, refused, folds, sample.groups, case.seed)


def _patched(
    bed: Bed, case: Case, asked: _Asked, planted: Planted | None, opening: tuple[int, ...], patched: int
) -> PatchEffects:
    """Patches every second layer of a few twins."""
    rows = bed.drawn(patched, seed=case.seed)
    part, edits = bed.only(rows), () if planted is None else planted.only(rows).edits
    layers = bed.layers[1::2]
    return patch_effects(
        lambda more: part.read(opening, (*edits, *more)),
        asked.states[torch.from_numpy(np.flatnonzero(rows))][:, 1::2, None],
        layers,
        LAST,
        harmful=asked.sample.harmful[rows],
        groups=part.groups,
        seed=case.seed,
    )


def _claimed(bed: Bed, case: Case, asked: _Asked, effects: PatchEffects) -> dict[str, Any]:
    claim = decision_claim(
        effects,
        asked.sample,
        asked.refused,
        family=case.family,
        position="t_post",
        top_layer=bed.layers[-1],
        seed=case.seed,
    )
    failed = [control.name for control in claim.controls if not control.passed]
    return {
        "established": claim.established,
        "patches": not set(failed) - set(BEHAVIOUR),
        "failed": ", ".join(failed),
        "lo": claim.lo,
        "hi": claim.hi,
    }


def _known(case: Case, planted: Planted | None) -> dict[str, Any]:
    """What is known of a case; missing for a null."""
    plant, took = (None, None) if planted is None else (planted.plant, planted.took)
    put = (None,) * 3 if plant is None else (plant.layer, plant.strength, plant.coverage)
    return dict(zip(KNOWN, (case.name, case.kind, case.family, *put, took), strict=True))


def _found(curve: Curve | None) -> dict[str, Any]:
    """What a locator says; numbers that are not finite are missing."""
    if curve is None:
        return {**dict.fromkeys(("onset", "lo", "hi", "height", "height_lo")), "separates": False}
    onset, height = curve.onset(), curve.height
    values = {"onset": onset.value, "lo": onset.lo, "hi": onset.hi, "height": height.value, "height_lo": height.lo}
    finite = {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
    return {**finite, "separates": bool(height.lo > curve.null)}
