"""Whether the consensus of the locators, the patches and the probe point at the same layers; if not, who does not, why.

The reason is measured: how much of what patching moves at its strongest it moves already at the layer that the
dissenter names. Little means that what is read there does not decide there, at these places; nearly all means that the
decision has been made before it is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from analyses.locators.causal_patch import PatchEffects
from analyses.locators.curve import Curve
from analyses.tribunal import NEAR, Consensus, Witness, agreement, apart
from interp.stats import Estimate, percentile_interval

CONSENSUS, PATCHES, PROBE = "consensus", "patches", "probe"
COLUMNS = ("first", "second", "apart", "lo", "hi", "agree")
TEMPLATE = "the template"
MUCH, LITTLE = 0.8, 0.2
"""Shares of the largest effect from which on the decision is called made, and below which nothing is."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One of the three.

    Attributes:
        name: consensus, patches or probe.
        onset: from where on.
        drawn: (resample,) the same in every resample of the groups.
    """

    name: str
    onset: Estimate
    drawn: Float[ndarray, " resample"]


def voices(
    found: Sequence[Witness], agreed: Consensus | None, causal: Sequence[Curve], decided: bool
) -> dict[str, Voice]:
    """Those of the three that say anything.

    Args:
        found: all witnesses.
        agreed: the consensus of those that read.
        causal: the curves of the patches at t_post.
        decided: whether these show any effect.
    """
    heard = []
    if agreed is not None:
        heard.append(Voice(CONSENSUS, agreed.by_group, agreed.drawn))
    if decided and causal:
        heard.append(Voice(PATCHES, causal[0].onset(), causal[0].drawn_onsets()))
    probes = [t.curve for t in found if t.curve.locator == PROBE]
    heard += [Voice(PROBE, curve.onset(), curve.drawn_onsets()) for curve in probes if np.isfinite(curve.onset().value)]
    return {voice.name: voice for voice in heard}


def accord_table(heard: Mapping[str, Voice]) -> pd.DataFrame:
    """How far every two of the three are apart, in layers, and whether they agree: yes, no or open."""
    rows = []
    for first, second in ((CONSENSUS, PATCHES), (PROBE, PATCHES), (CONSENSUS, PROBE)):
        if not {first, second} <= set(heard):
            continue
        a, b = heard[first], heard[second]
        far = apart(a.onset, a.drawn, b.onset, b.drawn)
        if far is not None:
            rows.append((first, second, far.value, far.lo, far.hi, agreement(far)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def accord_sentences(heard: Mapping[str, Voice], effects: Mapping[str, PatchEffects], *, seed: int = 0) -> list[str]:
    """Whether the three agree, or which does not and what patching says of the layer it names.

    Args:
        heard: see `voices`.
        effects: of patching, by place.
        seed: of the bootstrap.
    """
    missing = [name for name in (CONSENSUS, PATCHES, PROBE) if name not in heard]
    if missing:
        said = ", ".join(f"{name} {_layers(voice.onset)}" for name, voice in heard.items()) or "none says anything"
        return [
            f"Consensus, patches and probe can not be held against each other: no {' and no '.join(missing)} ({said})."
        ]
    said = ", ".join(f"{name} {_layers(voice.onset)}" for name, voice in heard.items())
    far = [v for v in heard.values() if v.name != PATCHES and _distance(v, heard[PATCHES]) > NEAR]
    between = _distance(heard[CONSENSUS], heard[PROBE])
    if not far and between <= NEAR:
        return [f"Consensus, patches and probe agree within {NEAR} layers: {said}."]
    lines = [f"Consensus, patches and probe do not agree within {NEAR} layers: {said}."]
    lines += [_dissent(voice, heard[PATCHES], effects, seed) for voice in far]
    if between > NEAR:
        lines.append(_apart(heard[CONSENSUS], heard[PROBE], between))
    return lines


def _apart(consensus: Voice, probe: Voice, between: float) -> str:
    order = "before" if consensus.onset.value < probe.onset.value else "after"
    return (
        f"The consensus comes {between:.0f} layers {order} the probe: its locators set harmful prompts against "
        "harmless ones, the probe what was refused against what was complied with."
    )


def _dissent(voice: Voice, patches: Voice, effects: Mapping[str, PatchEffects], seed: int) -> str:
    """What patching moves at the layer a voice names."""
    early = voice.onset.value < patches.onset.value
    head = (
        f"The {voice.name} points {_distance(voice, patches):.0f} layers {'below' if early else 'above'} the patches. "
        f"At layer {voice.onset.value:.0f} "
    )
    shares = {place: share for place, own in effects.items() if (share := _moved(own, voice.onset.value, seed))}
    told = "; ".join(f"{_percent(share)} at {place}" for place, share in shares.items()) or "nothing"
    where = f"patches move {told} of what they move at most: "
    return head + where + _why(early, shares.get("t_post"), shares.get(TEMPLATE))


def _why(early: bool, here: Estimate | None, template: Estimate | None) -> str:
    if not early:
        return "the decision is made before that, and what is seen there follows from it."
    if template is not None and template.lo > LITTLE and here is not None and here.hi < template.lo:
        return "what decides lies at other tokens of the template still, and is carried to t_post later."
    if here is not None and here.hi < MUCH:
        return "what is read there (harm, or what the answer will be) is known before it decides."
    return "the intervals leave open whether it decides there already."


def _moved(effects: PatchEffects, layer: float, seed: int) -> Estimate | None:
    """What twins' states put in at the patched layer next to this one move, as a share of the most they move."""
    curve = effects.sufficiency(seed=seed)
    if not curve.height.lo > 0:
        return None
    near = int(np.abs(np.asarray(curve.layers) - layer).argmin())
    best = int(np.nanargmax(curve.values))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = curve.drawn[:, near] / curve.drawn[:, best]
    lo, hi = percentile_interval(drawn)
    return Estimate(float(curve.values[near] / curve.values[best]), float(lo), float(hi), curve.n)


def _distance(one: Voice, other: Voice) -> float:
    return abs(one.onset.value - other.onset.value)


def _layers(onset: Estimate) -> str:
    return f"{onset.value:.0f} [{onset.lo:.0f}, {onset.hi:.0f}]"


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.lo:.0%}, {share.hi:.0%}]"
