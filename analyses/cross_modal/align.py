"""The align study: are a picture's states those of its caption, and where; no number without its floor."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analyses.cross_modal import align_figures as drawn
from analyses.cross_modal.align_claims import aligned_claim, less_aligned_claim, separation_claim
from analyses.cross_modal.align_words import alignment_sentences, notes, reference_sentences, separation_sentences
from analyses.cross_modal.arms import PLACES, Sides
from analyses.cross_modal.diagnostics import Diagnosis, diagnose
from analyses.cross_modal.part import Part, composed
from analyses.cross_modal.reference import Encode, Reference, described_reference, encoder_reference
from analyses.cross_modal.separation import Separation, separation
from interp.provenance import code_digest
from interp.study import Study

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Findings:
    """What the parts of the study are made of.

    Attributes:
        sides: the states.
        diagnoses: by place.
        separation: what text tells apart; None without enough of both kinds.
        references: by place; those of an encoder are the same at all.
        layers: the safety layers.
    """

    sides: Sides
    diagnoses: dict[str, Diagnosis]
    separation: Separation | None
    references: dict[str, tuple[Reference, ...]]
    layers: tuple[int, ...]


def run(
    sides: Sides,
    *,
    encoder: tuple[str, Encode] | None = None,
    references: Sequence[Reference] = (),
    safety_layers: Sequence[int] | None = None,
    others: Callable[[Findings], Sequence[Part]] = lambda _: (),
    seed: int = 0,
    progress: Progress = lambda *_: None,
    provenance: Mapping[str, Any] | None = None,
) -> Study:
    """Compares pictures with their captions.

    Args:
        sides: the states of every arm.
        encoder: name and function of the text encoder that reads captions and descriptions.
        references: more lines to hold the pictures against, such as CLIP's, made with the same ``seed``.
        safety_layers: where the claims are tested; by default the layers at which the text arm tells scenes from
            harmless pairs.
        others: gives parts that this study should hold as well, such as interventions.
        seed: of folds, bootstrap, permutations and random directions.
        progress: called with (steps done, steps in all).
        provenance: what claims should carry beside model, runs, pairs, seed and code digest.

    Returns:
        The ``layers`` table of every diagnostic, ``layer_map`` and ``descriptions``, their figures and the claims.
    """
    found = find(
        sides, encoder=encoder, references=references, safety_layers=safety_layers, seed=seed, progress=progress
    )
    about = _provenance(sides, seed, provenance or {})
    parts = (
        alignment_part(found, about, seed=seed),
        reference_part(found, about, seed=seed),
        separation_part(found, about),
        *others(found),
    )
    name = sides.image.identity["model.name"]
    return composed(
        parts,
        title=f"Do pictures reach the states of their captions: {name}",
        about={k: str(v) for k, v in {**sides.image.identity, **about}.items()},
    )


def find(
    sides: Sides,
    *,
    encoder: tuple[str, Encode] | None = None,
    references: Sequence[Reference] = (),
    safety_layers: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Findings:
    """Measures everything that the parts say; arguments as of `run`."""
    steps, diagnoses = len(PLACES) + 1, {}
    # Many small products, which leave all cores but one idle when they are made one after the other.
    with ThreadPoolExecutor(max_workers=len(PLACES)) as pool:
        running = {place: pool.submit(diagnose, sides.arms(place), place, seed=seed) for place in PLACES}
        for done, (place, diagnosis) in enumerate(running.items()):
            progress(done, steps)
            diagnoses[place] = diagnosis.result()
    progress(len(PLACES), steps)
    text = {place: sides.text_states(place) for place in PLACES}
    apart = separation(text, {p: d.arms for p, d in diagnoses.items()}, sides.harmful, seed=seed)
    held = list(references)
    if encoder is not None and sides.descriptions:
        name, encode = encoder
        held.append(encoder_reference(name, sides.descriptions, sides.captions, sides.concepts, encode, seed=seed))
    by_place = {place: (*held, *_described(sides, place, seed)) for place in PLACES}
    if safety_layers is None:
        safety_layers = apart.safety_layers if apart else ()
    progress(steps, steps)
    return Findings(sides, diagnoses, apart, by_place, tuple(safety_layers))


def alignment_part(found: Findings, about: Mapping[str, Any], *, seed: int = 0) -> Part:
    """Every diagnostic at every place."""
    layers = pd.concat([d.layers_table() for d in found.diagnoses.values()], ignore_index=True)
    maps = pd.concat([d.map.assign(position=p) for p, d in found.diagnoses.items()], ignore_index=True)
    shown = drawn.diagnostic_heatmaps(layers)
    for place, diagnosis in found.diagnoses.items():
        shown |= drawn.cosine_curves(layers, place)
        shown |= drawn.map_heatmap(diagnosis.map, place)
    return Part(
        layers=layers,
        tables={"layer_map": maps},
        figures=shown,
        sentences=alignment_sentences(found.diagnoses),
        notes=notes(found.sides),
        claims=tuple(aligned_claim(d, provenance=about, seed=seed) for d in found.diagnoses.values()),
        drawn_from={name: ("layer_map" if name.startswith("map") else "layers",) for name in shown},
    )


def reference_part(found: Findings, about: Mapping[str, Any], *, seed: int = 0) -> Part:
    """Pictures against the references, at the safety layers."""
    if not any(found.references.values()):
        return Part(sentences=reference_sentences(found.references, found.diagnoses, found.layers))
    numbers = found.sides.layers
    rows = [r.layers_table(numbers, place) for place, held in found.references.items() for r in held]
    layers = pd.concat(rows, ignore_index=True)
    pictures = pd.concat([d.layers_table() for d in found.diagnoses.values()], ignore_index=True)
    shown: drawn.Figures = {}
    for place in found.references:
        shown |= drawn.reference_curves(pd.concat([pictures, layers]), place)
    claims = [
        less_aligned_claim(found.diagnoses[place], reference, found.layers, provenance=about, seed=seed)
        for place, held in found.references.items()
        for reference in held
    ]
    return Part(
        layers=layers,
        tables=_descriptions(found.sides),
        figures=shown,
        sentences=reference_sentences(found.references, found.diagnoses, found.layers),
        claims=tuple(claims),
        drawn_from=dict.fromkeys(shown, ("layers",)),
    )


def separation_part(found: Findings, about: Mapping[str, Any]) -> Part:
    """What pictures keep of the direction along which text tells scenes apart, and the drift along it."""
    apart = found.separation
    if apart is None:
        return Part(sentences=separation_sentences(None, found.layers))
    layers = apart.layers_table()
    shown = drawn.separation_heatmaps(layers)
    return Part(
        layers=layers,
        figures=shown,
        sentences=separation_sentences(apart, found.layers),
        claims=tuple(separation_claim(apart, place, found.layers, provenance=about) for place in apart.scenes),
        drawn_from=dict.fromkeys(shown, ("layers",)),
    )


def _described(sides: Sides, place: str, seed: int) -> tuple[Reference, ...]:
    arms = sides.described_arms(place)
    return () if arms is None else (described_reference(arms, seed=seed),)


def _descriptions(sides: Sides) -> dict[str, pd.DataFrame]:
    if not sides.descriptions:
        return {}
    known = [(p.id, p.unit, p.scene, p.style, p.caption) for p in sides.pairs]
    frame = pd.DataFrame(known, columns=["pair", "concept", "scene", "style", "caption"])
    return {"descriptions": frame.assign(description=list(sides.descriptions))}


def _provenance(sides: Sides, seed: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """What every claim says of where it comes from; the pairs are the prompts of two arms."""
    runs = {"run": sides.image.key, "caption run": sides.caption.key, "text run": sides.text.key}
    prompts = f"{sides.image.identity['prompts']}+{sides.caption.identity['prompts']}"
    model = {"model": sides.image.identity["model.name"]}
    return {**model, **runs, "prompts": prompts, "seed": seed, "code": code_digest(), **more}
