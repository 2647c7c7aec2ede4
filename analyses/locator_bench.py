"""How good the locators are: each is held to plants whose layer is known, and to nulls that hold none.

A hit is an onset within one layer of the plant, of a curve that separates at all. A false alarm is a curve that
separates where nothing was planted: on the model as it is, where harm may be known but nothing is refused, and with the
two labels of every twin exchanged at random, where there is nothing to know.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy import ndarray

from analyses.locators.causal_patch import patch_effects
from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.panel import Vocabulary, probe_curve, reading_curves, state_curves, tuned_curve
from analyses.planted import LAST, Bed, Plant, Planted
from analyses.sample import Sample
from interp.lens import TunedLens
from interp.stats import group_codes, shuffled_labels, wilson
from probes.splits import by_group

NEAR = 1
"""Layers by which a hit may be off."""
FOLDS = 5
PATCHED = 8
"""Twins that are patched."""
STRENGTHS = (0.5, 1.0, 2.0)
COVERAGES = (0.5, 1.0)
TOOK = 0.5
"""Least share of the prompts that carry a plant on which the model says the words; other plants are no refusals."""
NULL, SHUFFLED = "null", "null, labels exchanged"
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
        found.append(
            Case(f"plant {i}", "spelled" if spelled else "hidden", families[i % len(families)], plant, seed + i)
        )
    for i in range(nulls):
        kind = NULL if i % 2 == 0 else SHUFFLED
        found.append(Case(f"null {i}", kind, families[i % len(families)], None, seed + i))
    return found


def run(
    bed: Bed,
    chosen: Sequence[Case],
    vocabularies: dict[str, Vocabulary],
    lens: TunedLens | None = None,
    *,
    patched: int = PATCHED,
    progress: Progress = lambda *_: None,
) -> pd.DataFrame:
    """Every locator on every case: one row each.

    Args:
        bed: the model.
        chosen: see `cases`.
        vocabularies: by family.
        lens: tuned to the model; without it that readout is left out.
        patched: how many twins are patched.
        progress: called with (cases done, cases in all).

    Returns:
        Columns case, kind, family, layer, strength, coverage, took (share of the prompts that carry the plant on which
        the model says the words), locator, onset, lo, hi, height, height_lo, separates.
        ``separates``: the height's simultaneous interval lies above what the locator gives where nothing separates.
    """
    rows: list[dict[str, Any]] = []
    for done, case in enumerate(chosen, start=1):
        words = vocabularies[case.family]
        planted = None if case.plant is None else bed.put(case.plant, words.lexicon.openings)
        for name, curve in _curves(bed, case, words, planted, lens, patched):
            rows.append(_row(case, planted, name, curve))
        progress(done, len(chosen))
    return pd.DataFrame(rows)


def _curves(
    bed: Bed, case: Case, words: Vocabulary, planted: Planted | None, lens: TunedLens | None, patched: int
) -> Iterator[tuple[str, Curve | None]]:
    """The curves of all locators; None where a locator says itself that there is nothing to locate."""
    states = bed.states if planted is None else planted.states
    harmful, rows = _asked(bed, case)
    refused = np.zeros(len(harmful), dtype=bool) if planted is None else planted.refused
    if case.kind == SHUFFLED:
        refused = harmful
    sample = replace(
        Sample.of(bed.prompts, seed=case.seed), labels=np.where(harmful, "harmful", "harmless").astype(object)
    )
    sample = sample.only(rows)
    states, kept = states[torch.from_numpy(np.flatnonzero(rows))], refused[rows]
    contrast = Contrast.of(sample)
    curves, _, _ = reading_curves(states, bed.layers, contrast, bed.readout, words)
    yield from curves.items()
    if lens is not None:
        yield "opening_logodds, tuned lens", tuned_curve(states, bed.layers, contrast, bed.readout, words, lens)
    yield from state_curves(states, bed.layers, contrast).items()
    folds = by_group(sample.groups, FOLDS, seed=case.seed)
    yield "probe", probe_curve(states, bed.layers, kept, folds, sample.groups, case.seed)
    if case.kind != SHUFFLED:
        yield from _causal(bed.part(patched), case, words)


def _asked(bed: Bed, case: Case) -> tuple[Bool[ndarray, " row"], Bool[ndarray, " row"]]:
    """Labels as this case has them, and the rows it takes: all for a plant, half of the twins for a null."""
    rng, codes = np.random.default_rng(case.seed), group_codes(bed.groups)
    harmful = shuffled_labels(bed.harmful, codes, rng) if case.kind == SHUFFLED else bed.harmful
    if case.plant is not None:
        return harmful, np.ones(len(codes), dtype=bool)
    units = rng.permutation(int(codes.max()) + 1)
    return harmful, np.isin(codes, units[: (len(units) + 1) // 2])


def _causal(bed: Bed, case: Case, words: Vocabulary) -> Iterator[tuple[str, Curve]]:
    """Patches every second layer of a few twins."""
    opening = words.lexicon.openings
    planted = None if case.plant is None else bed.put(case.plant, opening)
    edits, states = ((), bed.states) if planted is None else (planted.edits, planted.states)
    layers = bed.layers[1::2]
    effects = patch_effects(
        lambda more: bed.read(opening, (*edits, *more)),
        states[:, 1::2, None],
        layers,
        LAST,
        harmful=bed.harmful,
        groups=bed.groups,
        seed=case.seed,
    )
    yield "causal_patch, sufficiency", effects.sufficiency(seed=case.seed)
    yield "causal_patch, necessity", effects.necessity(seed=case.seed)


def _row(case: Case, planted: Planted | None, locator: str, curve: Curve | None) -> dict[str, Any]:
    plant = case.plant
    known = {
        "case": case.name,
        "kind": case.kind,
        "family": case.family,
        "layer": np.nan if plant is None else plant.layer,
        "strength": np.nan if plant is None else plant.strength,
        "coverage": np.nan if plant is None else plant.coverage,
        "took": np.nan if planted is None else float(planted.refused[planted.carried].mean()),
        "locator": locator,
    }
    if curve is None:
        nothing = dict.fromkeys(("onset", "lo", "hi", "height", "height_lo"), np.nan)
        return {**known, **nothing, "separates": False}
    onset, height = curve.onset(), curve.height
    values = {"onset": onset.value, "lo": onset.lo, "hi": onset.hi, "height": height.value, "height_lo": height.lo}
    return {**known, **values, "separates": bool(height.lo > curve.null)}


def score(found: pd.DataFrame) -> pd.DataFrame:
    """Hit rate, median error and false alarms of every locator.

    Args:
        found: of `run`.

    Returns:
        Of the plants that took (see `TOOK`), one row per locator and kind (spelled, hidden, and plants for both):
        ``hits`` with its Wilson interval and n, ``error`` (median distance of the onset from the plant in layers, over
        plants that the locator separates), ``alarms`` on nulls and ``alarms_exchanged`` on nulls with exchanged
        labels, with theirs.
    """
    rows = []
    found = found[~(found["took"] < TOOK)]
    plants, null, exchanged = (found[found["kind"].isin(k)] for k in (("spelled", "hidden"), (NULL,), (SHUFFLED,)))
    for locator in dict.fromkeys(found["locator"]):
        alarms = {
            name: _rate(part.loc[part["locator"] == locator, "separates"])
            for name, part in (("alarms", null), ("alarms_exchanged", exchanged))
        }
        own = plants[plants["locator"] == locator]
        for kind, part in (("plants", own), *((k, own[own["kind"] == k]) for k in ("spelled", "hidden"))):
            error = (part["onset"] - part["layer"]).abs()
            shown = part["separates"] & np.isfinite(part["onset"])
            median = float(error[shown].median()) if shown.any() else float("nan")
            rows.append(
                {"locator": locator, "kind": kind, **_rate(shown & (error <= NEAR), "hits"), "error": median}
                | {f"{name}{suffix}": value for name, rate in alarms.items() for suffix, value in rate.items()}
            )
    return pd.DataFrame(rows)


def _rate(hits: pd.Series, name: str = "") -> dict[str, float]:
    found = wilson(int(hits.sum()), len(hits))
    return {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi, f"{name}_n": found.n}
