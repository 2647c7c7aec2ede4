"""The claims of an align study, each with the controls it must pass.

They are claims about geometry. Whether the model uses what is alike there is another question, and the statements say
so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analyses.cross_modal.diagnostics import MAIN, Diagnosis
from analyses.cross_modal.reference import Reference
from analyses.cross_modal.separation import Separation
from analyses.locators.curve import Curve
from interp.geometry import Alignment, Arms, Profile, alignment
from interp.geometry.arms import FOLDS
from interp.stats import Estimate, percentile_interval
from interp.study import Claim, Control

ALPHA = 0.05
EXACT = 0.99
MODAL = ("no_rogue", "whitened")
"""The variants that must agree with `MAIN`; raw cosines need not, they mislead."""
NOT_CAUSAL = "whether the model uses it was not tested"


def aligned_claim(found: Diagnosis, *, provenance: Mapping[str, Any], seed: int = 0) -> Claim:
    """Pictures lie nearer to their own captions than to others', from some layer on."""
    excess = found.main.excess
    curve = _curve("alignment_excess", excess)
    onset, height = curve.onset(), curve.height
    best = int(np.nanargmax(excess.value))
    others = {name: found.alignments[name].excess for name in MODAL}
    p = excess.p if excess.p is not None else float("nan")
    controls = (
        Control(
            "excess",
            bool(height.lo > 0),
            f"largest {_interval(height)} at layer {excess.layers[best]}, over all layers at once",
            "lower bound > 0",
        ),
        Control("permutation", bool(p <= ALPHA), f"p = {p:.3f} over all layers", f"p <= {ALPHA}"),
        Control(
            "variants",
            all(bool(other.lo[best] > 0) for other in others.values()),
            "; ".join(f"{n} {_at(other, best)}" for n, other in others.items()) + f" at layer {excess.layers[best]}",
            "lower bounds > 0",
        ),
        _instrument(found.arms, found.arms.layers, seed),
    )
    statement = (
        f"At {found.place}, pictures' states are nearer to their own captions than to others' from layer "
        f"{_layer(onset.value)} [{_layer(onset.lo)}, {_layer(onset.hi)}] on; {NOT_CAUSAL}."
    )
    first, lo, hi = (v if np.isfinite(v) else None for v in (onset.value, onset.lo, onset.hi))
    return Claim(
        statement, curve.locator, "own caption", found.place, first, lo, hi, excess.n, controls, dict(provenance)
    )


def less_aligned_claim(
    found: Diagnosis, reference: Reference, layers: Sequence[int], *, provenance: Mapping[str, Any], seed: int = 0
) -> Claim:
    """Image states are less aligned with their captions than the reference is, at these layers; both above chance.

    Args:
        found: pictures against captions at one place.
        reference: what they are held against, with the resamples of ``found``.
        layers: usually those at which text is told to be harmful; a claim about none fails.
        provenance: what the record should carry.
        seed: of the controls.
    """
    layers = tuple(layers)
    lacking = _lacking(found.main, reference, layers)
    ref = _mean(*reference.attained(layers)) if layers else _nothing()
    own = _mean(*_attained(found.main, layers)) if layers else _nothing()
    others = {name: _lacking(found.alignments[name], reference, layers) for name in MODAL}
    elsewhere = _best_elsewhere(found, layers)
    p = reference.alignment.excess.p or float("nan")
    controls = (
        Control("layers", bool(layers), f"{len(layers)} layers", "at least one at which text is told apart"),
        Control(
            "reference",
            bool(ref.lo > 0 and p <= ALPHA),
            f"{reference.name} attains {_interval(ref)}, p = {p:.3f} by permutation",
            f"lower bound > 0, p <= {ALPHA}",
        ),
        Control("less", bool(lacking.lo > 0), f"lacking {_interval(lacking)}", "lower bound > 0"),
        Control(
            "other layers",
            bool(ref.lo > elsewhere),
            f"pictures attain {elsewhere:.2f} at the best caption layer",
            f"below {ref.lo:.2f}, the lower bound of the reference",
        ),
        Control(
            "variants",
            all(bool(other.lo > 0) for other in others.values()),
            "lacking " + "; ".join(f"{_interval(other)} {n}" for n, other in others.items()),
            "lower bounds > 0",
        ),
        _instrument(found.arms, layers, seed),
    )
    where = f"layers {layers[0]}-{layers[-1]}" if layers else "no layer"
    statement = (
        f"At {found.place} and {where}, pictures' states attain {_interval(own)} of the alignment with their captions, "
        f"{reference.name} ({reference.what}) {_interval(ref)}; {NOT_CAUSAL}."
    )
    return Claim(
        statement, "less_aligned", reference.name, found.place, None, None, None, found.main.excess.n, controls,
        dict(provenance),
    )  # fmt: skip


def separation_claim(found: Separation, place: str, layers: Sequence[int], *, provenance: Mapping[str, Any]) -> Claim:
    """Pictures of scenes are told from harmless ones less than their captions are, along the direction of text."""
    layers = tuple(layers)
    captions, pictures, lost = (
        _mean(*_drawn(side[place], layers)) if layers else _nothing()
        for side in (found.captions, found.pictures, found.lost)
    )
    p = found.lost[place].p or float("nan")
    controls = (
        Control("layers", bool(layers), f"{len(layers)} layers", "at least one at which text is told apart"),
        Control("captions", bool(captions.lo > 0), f"captions {_interval(captions)}", "lower bound > 0"),
        Control("lost", bool(lost.hi < 0), f"pictures minus captions {_interval(lost)}", "upper bound < 0"),
        Control(
            "permutation",
            bool(p <= ALPHA),
            f"p = {p:.3f} over all layers, scenes and harmless concepts exchanged",
            f"p <= {ALPHA}",
        ),
    )
    where = f"layers {layers[0]}-{layers[-1]}" if layers else "no layer"
    statement = (
        f"At {place} and {where}, pictures of scenes are told from harmless ones by {_interval(pictures)} of the "
        f"distance at which text tells them apart, captions by {_interval(captions)}; {NOT_CAUSAL}."
    )
    n = found.lost[place].n
    return Claim(statement, "separation", "scene - harmless", place, None, None, None, n, controls, dict(provenance))


def _instrument(arms: Arms, layers: Sequence[int], seed: int) -> Control:
    """Caption states in place of image states must attain everything, in this very pipeline."""
    same = Arms(arms.caption, arms.caption, arms.concepts, arms.layers)
    folds = min(FOLDS, len(arms.names) // 2)
    attained = alignment(same, MAIN, folds=folds, seed=seed, resamples=1, permutations=1).attained.value
    at = [arms.layers.index(layer) for layer in layers]
    # A layer whose captions do not differ can attain nothing, and is no fault of the instrument.
    found = float(np.median(attained[at])) if at else float("nan")
    return Control(
        "instrument",
        bool(found >= EXACT),
        f"captions in place of pictures attain {found:.2f}",
        f"at least {EXACT}",
    )


def _best_elsewhere(found: Diagnosis, layers: Sequence[int]) -> float:
    """What pictures attain at the caption layer that suits each of these layers best, on average."""
    if not layers:
        return float("nan")
    table = found.map[found.map["image_layer"].isin(layers)]
    attained = table["value"] / (1 - table["floor"]).clip(lower=1e-9)
    return float(attained.groupby(table["image_layer"]).max().mean())


def _lacking(own: Alignment, reference: Reference, layers: Sequence[int]) -> Estimate:
    """The mean over layers of what the reference attains and pictures do not, draw by draw."""
    if not layers:
        return _nothing()
    (value, drawn), (ref, ref_drawn) = _attained(own, layers), reference.attained(layers)
    return _mean(ref - value, ref_drawn - drawn)


def _attained(
    found: Alignment, layers: Sequence[int]
) -> tuple[Float[ndarray, " layer"], Float[ndarray, "resample layer"]]:
    return _drawn(found.attained, layers)


def _drawn(
    profile: Profile, layers: Sequence[int]
) -> tuple[Float[ndarray, " layer"], Float[ndarray, "resample layer"]]:
    at = [profile.layers.index(layer) for layer in layers]
    if profile.drawn is None:
        raise ValueError(f"{profile.measure} has no resamples to compare")
    return profile.value[at], profile.drawn[:, at]


def _mean(value: Float[ndarray, " layer"], drawn: Float[ndarray, "resample layer"]) -> Estimate:
    lo, hi = percentile_interval(drawn.mean(1))
    return Estimate(float(value.mean()), float(lo), float(hi), len(value))


def _nothing() -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), 0)


def _curve(locator: str, profile: Profile) -> Curve:
    if profile.drawn is None:
        raise ValueError(f"{profile.measure} has no resamples")
    unit = "cosine"
    return Curve(locator, profile.layers, profile.value, profile.drawn, unit, profile.n, "matched - shuffled")


def _interval(one: Estimate) -> str:
    return f"{one.value:.2f} [{one.lo:.2f}, {one.hi:.2f}]"


def _at(profile: Profile, layer: int) -> str:
    return f"{profile.value[layer]:.2f} [{profile.lo[layer]:.2f}, {profile.hi[layer]:.2f}]"


def _layer(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"
