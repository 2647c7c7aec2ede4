"""The sentences of an align study."""

from collections.abc import Mapping, Sequence

import numpy as np

from analyses.cross_modal.arms import Sides
from analyses.cross_modal.diagnostics import MAIN, Diagnosis
from analyses.cross_modal.reference import Reference
from analyses.cross_modal.separation import Separation
from interp.geometry import Profile
from interp.geometry.arms import FOLDS
from interp.geometry.variants import ROGUE


def alignment_sentences(diagnoses: Mapping[str, Diagnosis]) -> tuple[str, ...]:
    """For every place: what the raw cosine says, what the excess says, and where captions fit best."""
    return tuple(_of_place(place, found) for place, found in diagnoses.items())


def _of_place(place: str, found: Diagnosis) -> str:
    raw, excess = found.alignments["raw"], found.main.excess
    apart = float(np.nanmax(np.abs(raw.excess.value)))
    best = int(np.nanargmax(excess.value))
    top, _ = found.found
    return (
        f"At {place} the raw cosine of a picture with its caption is {_range(raw.matched)} over the layers, and with "
        f"captions of other concepts {_range(raw.shuffled)}, at most {apart:.2f} apart. The excess of the first over "
        f"the second, {MAIN}, is at most {_at(excess, best)} at layer {excess.layers[best]} (p = {excess.p:.3f}); the "
        f"own caption ranks first {_at(top, best, percent=True)} of the time there (chance {top.floor[best]:.0%}). "
        f"{_elsewhere(found)}"
    )


def _elsewhere(found: Diagnosis) -> str:
    cell = found.map.sort_values("value").iloc[-1]
    return (
        f"Of all layer pairs, pictures at layer {cell['image_layer']:.0f} fit captions at layer "
        f"{cell['caption_layer']:.0f} best, {cell['value']:.2f} [{cell['lo']:.2f}, {cell['hi']:.2f}]."
    )


def reference_sentences(
    references: Mapping[str, Sequence[Reference]], diagnoses: Mapping[str, Diagnosis], layers: Sequence[int]
) -> tuple[str, ...]:
    """What pictures attain beside what each reference attains."""
    if not any(references.values()):
        return ("No reference line: the model was not asked what it sees, so nothing says how alike the pairs are.",)
    if not layers:
        return (
            "No layer at which text is told to be harmful, so the references are compared in the figures only; name "
            "layers with --layers.",
        )
    lines = []
    for place, held in references.items():
        own = diagnoses[place].main.attained
        at = [own.layers.index(layer) for layer in layers]
        said = "; ".join(f"{r.name} {float(np.mean(r.attained(layers)[0])):.2f}" for r in held)
        lines.append(
            f"At {place} and layers {_numbers(layers)} pictures attain {float(np.mean(own.value[at])):.2f} of the "
            f"alignment with their captions (0 chance, 1 the same); {said}."
        )
    return tuple(lines)


def separation_sentences(found: Separation | None, layers: Sequence[int]) -> tuple[str, ...]:
    """Whether text tells scenes apart, and what pictures keep of it."""
    if found is None:
        return ("Too few scenes or harmless pairs for a direction that tells them apart, so none was looked along.",)
    height = found.text.height
    first = (
        f"The text arm tells scenes from harmless pairs at t_post by {height.value:.2f} [{height.lo:.2f}, "
        f"{height.hi:.2f}] standard deviations at its best layer"
    )
    if not found.safety_layers:
        return (f"{first}: not beyond chance, so there are no safety layers to look at.",)
    lines = [f"{first}, and at least half as far at layers {_numbers(found.safety_layers)}."]
    at = [found.text.layers.index(layer) for layer in layers]
    for place in found.scenes if at else ():
        captions, pictures = (float(np.mean(d[place].value[at])) for d in (found.captions, found.pictures))
        drifts = [float(np.nanmean(d[place].along.value[at])) for d in (found.scenes, found.harmless)]
        lines.append(
            f"Along that direction, at {place} and layers {_numbers(layers)}, captions of scenes lie {captions:+.2f} "
            f"from harmless ones and pictures {pictures:+.2f} (1: as far as in text); pictures of scenes lie "
            f"{drifts[0]:+.2f} from their own captions, harmless pictures {drifts[1]:+.2f}."
        )
    return tuple(lines)


def notes(sides: Sides) -> tuple[str, ...]:
    """What must be known to read the figures rightly."""
    concepts = len(sides.concepts_known)
    return (
        "Layer 0 is the embedding, layer i the residual stream after block i. slot: the mean over the picture's tokens "
        "against the mean over the caption's tokens, which stand in the same place. t_inst: last token of the "
        "question. t_post: last token before the answer. Both arms ask the same question.",
        f"The unit is the concept ({concepts} in {len(sides.pairs)} pairs): pictures of one thing in several styles "
        "are one observation, and a mismatch is always of two concepts. Floors are means over all mismatches, not over "
        "one shuffle. Intervals are 95 %, bootstrap over concepts, with what was fitted held fixed; for CKA a "
        "jackknife, for subspaces percentiles over halvings.",
        f"Variants: raw; centred, each arm's mean taken off; no_rogue, the {ROGUE} coordinates with most of the "
        "squared norm set to 0; whitened, centred and divided by the square root of the shrunk covariance. Means, "
        "coordinates and covariances are those of the concepts of other folds "
        f"(of {min(FOLDS, concepts // 2)}), and only concepts of one fold are compared, so nothing is fitted to what "
        "it is tried on.",
        "attained is (matched - shuffled) / (1 - shuffled): 0 for chance, 1 for states that are the same. It makes "
        "spaces of different floors comparable, not equal.",
        "The direction of refusal is that between the means of scenes and harmless pairs in the text arm: what is "
        "asked, not what the model did.",
    )


def _range(profile: Profile) -> str:
    return f"{np.nanmin(profile.value):.2f} to {np.nanmax(profile.value):.2f}"


def _at(profile: Profile, layer: int, *, percent: bool = False) -> str:
    form = "{:.0%} [{:.0%}, {:.0%}]" if percent else "{:.2f} [{:.2f}, {:.2f}]"
    return form.format(profile.value[layer], profile.lo[layer], profile.hi[layer])


def _numbers(layers: Sequence[int]) -> str:
    """Layer numbers as ranges: 3-5, 9."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
