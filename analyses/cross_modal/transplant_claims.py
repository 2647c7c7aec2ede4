"""What transplants allow to be claimed: that some states restore refusal, or take it away, at some layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.cross_modal.completeness import Band, Transplants
from analyses.cross_modal.resampled import mean_of, told, told_share
from analyses.cross_modal.transplant import (
    NECESSITY,
    NOISE,
    OWN,
    POSITIONS,
    SHUFFLED,
    STRANGER,
    SUFFICIENCY,
    TWIN,
    WHERE,
)
from interp.study import Claim, Control

HALF = 0.5
"""Least share of the way that must be gone for refusal to be called restored, or gone."""
REQUIRED = (TWIN, NOISE, SHUFFLED)
"""Placebos that must do less. Another harmful caption may well restore refusal too, and is reported beside."""
PLACEBO_SHARE = 0.5
"""Most that a placebo may do of what the pair's own states do."""
STATEMENT = {
    SUFFICIENCY: "Putting the caption's states in at layers {}-{} of {} restores refusal.",
    NECESSITY: "Putting the image's states in at layers {}-{} of {} takes the refusal of the caption away.",
}
Judged = Mapping[tuple[str, str, str, int], Float[ndarray, " row"]]
"""By direction, position, source and layer: 1 for an answer judged a refusal, 0 for none, NaN for one left out."""


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring layers of the map at which every rule of layers passes.

    Attributes:
        layers: ascending; the layer of the largest completeness where no layer passes.
        passes: whether they do.
    """

    layers: tuple[int, ...]
    passes: bool


def span(found: Transplants, direction: str, position: str) -> Span:
    """The longest run of neighbouring layers that pass, of those at which placebos were run; the first of equals.

    A layer passes where completeness is at least `HALF`, its lower bound over all layers at once is above 0, and each
    of `REQUIRED` does less than `PLACEBO_SHARE` of the effect, again over all layers at once.
    """
    layers = found.plan.placebo_layers
    at = [found.plan.layers.index(layer) for layer in layers]
    band = found.completeness(direction, OWN, position)
    passed: Bool[ndarray, " layer"] = (band.value >= HALF) & (band.lower > 0)
    for name in _required(found):
        passed &= _less(found, direction, name, position).lower > 0
    best: tuple[int, ...] = ()
    run: tuple[int, ...] = ()
    for layer, ok in zip(layers, passed[at], strict=True):
        run = (*run, layer) if ok else ()
        best = run if len(run) > len(best) else best
    if best:
        return Span(best, True)
    effect = np.nan_to_num(found.effect(direction, OWN, position).value[at], nan=-np.inf)
    return Span((layers[int(effect.argmax())],), False)


def transplant_claims(
    found: Transplants, judged: Judged, *, family: str, provenance: dict[str, Any] | None = None
) -> tuple[Claim, ...]:
    """One claim per direction and position, made only when every control passes.

    The controls: the two arms differ, in log-odds; most of the way is gone at every layer of the span; the interval
    over all layers at once keeps clear of 0; the twin's states, noise and states of a wrong layer each do less than
    half of it; and the answers follow. ``onset`` to ``hi`` is the span: its first and its last layer.

    Args:
        found: the map.
        judged: answers without transplants (layer -1, source empty, position empty) and under some.
        family: in whose words the log-odds are read.
        provenance: what the records should carry.
    """
    return tuple(
        _claim(found, judged, direction, position, family, provenance or {})
        for direction in found.found
        for position in found.plan.positions
    )


def _claim(
    found: Transplants, judged: Judged, direction: str, position: str, family: str, provenance: dict[str, Any]
) -> Claim:
    where = span(found, direction, position)
    at = [found.plan.layers.index(layer) for layer in where.layers]
    band = found.completeness(direction, OWN, position)
    gap = found.gap
    least = int(np.nan_to_num(band.value[at], nan=-np.inf).argmin())
    value, lower = float(band.value[at][least]), float(band.lower[at].min())
    controls = (
        Control("arms differ", bool(gap.lo > 0), f"caption minus image {told(gap, 'nats')}", "lower bound > 0"),
        Control("effect", value >= HALF, f"completeness at least {value:.2f}", f"{HALF} or more"),
        Control("interval", lower > 0, f"lower bound over all layers at once {lower:.2f}", "> 0"),
        *(_beyond(found, direction, name, position, at) for name in _required(found)),
        _answers(found, judged, direction, position, where.layers),
    )
    first, last = float(where.layers[0]), float(where.layers[-1])
    return Claim(
        statement=STATEMENT[direction].format(where.layers[0], where.layers[-1], _named(position)),
        locator=f"transplant, {direction}",
        family=family,
        position=position,
        onset=first if where.passes else None,
        lo=first if where.passes else None,
        hi=last if where.passes else None,
        n=len(found.units),
        controls=controls,
        provenance=provenance,
    )


def _less(found: Transplants, direction: str, placebo: str, position: str) -> Band:
    """The effect minus the most that a placebo may be: above 0 where the placebo does less than its share."""
    return found.beyond(direction, placebo, position, times=1 / PLACEBO_SHARE)


def _required(found: Transplants) -> tuple[str, ...]:
    return tuple(name for name in REQUIRED if name in found.plan.sources)


def _named(position: str) -> str:
    return f"{position} ({WHERE[position]})" if position in POSITIONS else position


def _beyond(found: Transplants, direction: str, placebo: str, position: str, at: list[int]) -> Control:
    lower = _less(found, direction, placebo, position).lower[at]
    place = at[int(np.nan_to_num(lower, nan=-np.inf).argmin())]
    own, other = (found.effect(direction, name, position).value[place] for name in (OWN, placebo))
    return Control(
        f"placebo: {placebo}",
        bool((lower > 0).all()),
        f"{other:.2f} against {own:.2f} nats at layer {found.plan.layers[place]}",
        f"less than {PLACEBO_SHARE:.0%}, over all layers at once",
    )


def _answers(found: Transplants, judged: Judged, direction: str, position: str, layers: tuple[int, ...]) -> Control:
    """Whether more answers (fewer, for necessity) are refusals than without a transplant, at a judged layer inside."""
    before = judged.get((direction, "", "", -1))
    inside = [k for k in judged if k[:3] == (direction, position, OWN) and layers[0] <= k[3] <= layers[-1]]
    if before is None or not inside:
        return Control("answers", False, "no answers were judged at these layers", "judged refusal follows")
    sign = 1 if direction == SUFFICIENCY else -1
    changes = [mean_of(sign * (judged[k] - before), found.weights) for k in inside]
    worst = min(changes, key=lambda change: np.nan_to_num(change.lo, nan=-np.inf))
    what = "more" if direction == SUFFICIENCY else "fewer"
    return Control("answers", bool(worst.lo > 0), f"{told_share(worst)} {what} answers refuse", "lower bound > 0")


def sentences(found: Transplants, claims: tuple[Claim, ...]) -> list[str]:
    """What the map says in words: the arms, each direction, and what a stranger's states do."""
    gap = found.gap
    if not (gap.lo > 0 or gap.hi < 0):
        return [
            f"The caption and the image arm do not differ in refusal ({told(gap, 'nats')}, n = {gap.n}): there is no "
            "way between them that a transplant could go, so completeness has no number."
        ]
    lines = [f"Refusal log-odds of the caption arm minus those of the image arm: {told(gap, 'nats')} (n = {gap.n})."]
    for direction in found.found:
        made = [c for c in claims if c.locator == f"transplant, {direction}" and c.established]
        lines += [f"{direction.capitalize()} at {c.position}: {_stranger(found, direction, c)}" for c in made]
    return lines


def _stranger(found: Transplants, direction: str, claim: Claim) -> str:
    """How much of it another pair of the same kind does: whether it is this content, or that kind of content."""
    if STRANGER not in found.plan.sources or claim.onset is None:
        return str(claim.statement)
    i = found.plan.layers.index(int(claim.onset))
    own, other = (found.completeness(direction, source, claim.position) for source in (OWN, STRANGER))
    (lo, hi), (other_lo, other_hi) = own.interval, other.interval
    return (
        f"completeness at layer {int(claim.onset)}: {own.value[i]:.2f} [{lo[i]:.2f}, {hi[i]:.2f}]; with the states of "
        f"another pair of the same kind {other.value[i]:.2f} [{other_lo[i]:.2f}, {other_hi[i]:.2f}]."
    )
