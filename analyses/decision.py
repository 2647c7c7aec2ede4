"""The claim that refusal is decided in some layers, made only when patching says so and every control passes."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from analyses.locators.causal_patch import PatchEffects
from analyses.locators.curve import Curve
from analyses.sample import Sample
from interp.stats import Estimate, max_permutation, wilson
from interp.study import Claim, Control

MIN_SHARE = 0.5
"""Least lower bound of the share of harmful prompts refused, and of the same minus the share of harmless ones."""
MAX_WIDTH = 0.2
"""Widest range of layers, as a share of the model's depth."""
ALPHA = 0.05
BEHAVIOUR = ("refuses", "specificity")
"""The controls of what the model does; all others are of what patches do."""
PLACEBO_SHARE = 0.5
"""Most that a placebo may do of what the twin's states do."""


def decision_claim(
    effects: PatchEffects,
    sample: Sample,
    refused: Bool[ndarray, " prompt"],
    *,
    family: str,
    position: str,
    top_layer: int,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> Claim:
    """Refusal is decided where the twin's states begin to suffice and to be needed.

    The range runs from the lower end of the earlier of the two onsets to the upper end of the later one. The controls:
    the model refuses, and refuses harmful prompts rather than harmless ones; patches of twins do more than what labels
    exchanged within twins give (over all layers at once); they suffice; they are needed; strangers of the same kind do
    less than half of it; and the range is narrow.

    Args:
        effects: of patching a part of the prompts at one position.
        sample: all prompts.
        refused: what the model did with them.
        family: in whose words the effect was read.
        position: where was patched.
        top_layer: L.
        seed: of the bootstrap and permutations.
        provenance: what the record should carry.
    """
    curves = effects.sufficiency(seed=seed), effects.necessity(seed=seed)
    placebos = effects.sufficiency(placebo=True, seed=seed), effects.necessity(placebo=True, seed=seed)
    where = _range([curve.onset() for curve in curves])
    p = max_permutation(effects.moved, ~effects.harmful, effects.groups, seed=seed)
    controls = (
        *_behaviour(sample, refused),
        Control("permutation", p <= ALPHA, f"p = {p:.3f} over all layers", f"p <= {ALPHA}"),
        *(_moves(name, curve) for name, curve in zip(("sufficiency", "necessity"), curves, strict=True)),
        _placebo(curves, placebos),
        _narrow(where, top_layer),
    )
    value, lo, hi = (v if np.isfinite(v) else None for v in (where.value, where.lo, where.hi))
    return Claim(
        statement=f"Refusal is decided in {_span(where)}, at {position}: from there on "
        "the states of the other prompt of a twin turn the model round.",
        locator="causal_patch",
        family=family,
        position=position,
        onset=value,
        lo=lo,
        hi=hi,
        n=len(sample),
        controls=controls,
        provenance=provenance or {},
    )


def _range(onsets: list[Estimate]) -> Estimate:
    return Estimate(
        float(np.mean([o.value for o in onsets])),
        min(o.lo for o in onsets),
        max(o.hi for o in onsets),
        min(o.n for o in onsets),
    )


def _behaviour(sample: Sample, refused: Bool[ndarray, " prompt"]) -> tuple[Control, Control]:
    share = wilson(int(refused[sample.harmful].sum()), int(sample.harmful.sum()))
    (value, lo, hi), _ = sample.difference(refused.astype(np.float64))
    return (
        Control(
            BEHAVIOUR[0],
            share.lo > MIN_SHARE,
            f"{share.value:.0%} [{share.lo:.0%}, {share.hi:.0%}] of harmful prompts",
            f"lower bound > {MIN_SHARE:.0%}",
        ),
        Control(
            BEHAVIOUR[1],
            bool(lo > MIN_SHARE),
            f"harmful minus harmless {value:.0%} [{lo:.0%}, {hi:.0%}]",
            f"lower bound > {MIN_SHARE:.0%}",
        ),
    )


def _moves(name: str, curve: Curve) -> Control:
    height = curve.height
    found = f"largest effect {height.value:.1f} [{height.lo:.1f}, {height.hi:.1f}] nats"
    return Control(name, bool(height.lo > 0), found, "lower bound > 0")


def _placebo(curves: tuple[Curve, Curve], placebos: tuple[Curve, Curve]) -> Control:
    """The upper bound of what strangers do, against the lower bound of what twins do, the worse of the two."""
    pairs = [(p.height.hi, c.height.lo) for c, p in zip(curves, placebos, strict=True)]
    passed = all(theirs < PLACEBO_SHARE * own for theirs, own in pairs)
    found = ", ".join(f"at most {theirs:.1f} against at least {own:.1f} nats" for theirs, own in pairs)
    return Control("placebo", bool(passed), found, f"less than {PLACEBO_SHARE:.0%}")


def _narrow(where: Estimate, top_layer: int) -> Control:
    width = where.hi - where.lo if np.isfinite([where.lo, where.hi]).all() else np.inf
    found = f"layers {_layer(where.lo)} to {_layer(where.hi)}"
    needed = f"at most {MAX_WIDTH:.0%} of {top_layer} layers"
    return Control("interval", bool(width <= MAX_WIDTH * top_layer), found, needed)


def _span(where: Estimate) -> str:
    if where.lo == where.hi:
        return f"layer {_layer(where.lo)}"
    return f"layers {_layer(where.lo)}-{_layer(where.hi)}"


def _layer(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"
