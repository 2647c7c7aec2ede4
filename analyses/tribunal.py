"""The tribunal: what every locator says of the same model, whether they agree, and what is wrong with each.

A locator is flagged when it never fires, fires on harmless prompts alike, moves about under resampling, or points at
layers where patching changes nothing. The consensus is the median onset of those that are not flagged by their own
words; whether it lies where the model decides is a question to the patches alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.locators.curve import Curve
from analyses.locators.firing import Firing
from interp.stats import Estimate, layer_interval

NEAR = 3
"""Layers within which two onsets agree."""
MAX_WIDTH = 0.2
FEWEST = 3
"""Locators below which there is no consensus."""
NEVER, ALIKE, UNSTABLE, NOT_CAUSAL = "never fires", "fires on harmless alike", "unstable", "not causal"
CAUSAL = "causal_patch"


@dataclass(frozen=True, slots=True)
class Witness:
    """What one locator says.

    Attributes:
        curve: with its resamples over groups.
        ungrouped: the same with every prompt resampled alone; None where the locator has none.
        family: in whose words, or "none" for a locator that sees no word.
        position: where it reads.
        flags: what is wrong with it.
    """

    curve: Curve
    ungrouped: Curve | None
    family: str
    position: str
    flags: tuple[str, ...]

    @property
    def onset(self) -> Estimate:
        """Its onset."""
        return self.curve.onset()

    @property
    def heard(self) -> bool:
        """Whether it counts in the consensus: nothing but its distance from the patches is held against it."""
        return not set(self.flags) - {NOT_CAUSAL}


def flags(
    curve: Curve, top_layer: int, decided: Estimate | None, firing: Firing | None, harmful: Bool[ndarray, " prompt"]
) -> list[str]:
    """What is wrong with a locator.

    Args:
        curve: what it says.
        top_layer: L.
        decided: where patching begins to turn the model round; None where it does not.
        firing: for a rule that fires prompt by prompt.
        harmful: (prompt,) which prompts ask for harm, for the same rule.
    """
    onset = curve.onset()
    alike = firing is not None and _alike(firing, harmful)
    if not curve.height.lo > curve.null or not np.isfinite(onset.value):
        return [ALIKE if alike else NEVER]
    found = [ALIKE] if alike else []
    if not onset.hi - onset.lo <= MAX_WIDTH * top_layer:
        found.append(UNSTABLE)
    if not curve.locator.startswith(CAUSAL) and (decided is None or abs(onset.value - decided.value) > NEAR):
        found.append(NOT_CAUSAL)
    return found


def _alike(firing: Firing, harmful: Bool[ndarray, " prompt"]) -> bool:
    """Whether a rule fires on harmless prompts more than half as often as on harmful ones."""
    fired = firing.fired_by[:, -1]
    return bool(fired[~harmful].mean() > fired[harmful].mean() / 2)


def verdict_table(found: Sequence[Witness]) -> pd.DataFrame:
    """One row per locator: onset and peak with intervals, height against its null, and its red flags."""
    rows = []
    for one in found:
        curve, onset, peak, height = one.curve, one.onset, one.curve.peak, one.curve.height
        rows.append(
            {
                "locator": curve.locator, "family": one.family, "position": one.position, "contrast": curve.contrast,
                "onset": onset.value, "onset_lo": onset.lo, "onset_hi": onset.hi,
                "peak": peak.value, "peak_lo": peak.lo, "peak_hi": peak.hi,
                "height": height.value, "height_lo": height.lo, "height_hi": height.hi, "null": curve.null,
                "unit": curve.unit, "n": curve.n, "flags": ", ".join(one.flags),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def agreement_table(found: Sequence[Witness]) -> pd.DataFrame:
    """For every two locators how far apart their onsets are, with its interval, and whether they agree.

    Resamples are paired where both rest on the same prompts. ``agree`` is "yes" when the whole interval lies within
    `NEAR` layers, "no" when all of it lies outside, else "open"; missing where either never fires.
    """
    rows = []
    for first, second in combinations(found, 2):
        far = apart(first.onset, first.curve.drawn_onsets(), second.onset, second.curve.drawn_onsets())
        if far is not None:
            rows.append(
                {"first": first.curve.locator, "second": second.curve.locator, "apart": far.value, "lo": far.lo,
                 "hi": far.hi, "n": far.n, "agree": agreement(far)}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["first", "second", "apart", "lo", "hi", "n", "agree"])


def apart(
    first: Estimate, drawn: Float[ndarray, " resample"], second: Estimate, also: Float[ndarray, " other"]
) -> Estimate | None:
    """How many layers two onsets are apart, with the interval of their paired resamples; None where either is never."""
    n = min(len(drawn), len(also))
    fired = np.isfinite(drawn[:n]) & np.isfinite(also[:n])
    value = abs(first.value - second.value)
    if not fired.any() or not np.isfinite(value):
        return None
    return Estimate(value, *layer_interval(np.abs(drawn[:n][fired] - also[:n][fired])), min(first.n, second.n))


def agreement(far: Estimate) -> str:
    """Whether two onsets so far apart agree: "yes" and "no" for the whole interval, else "open"."""
    return "yes" if far.hi <= NEAR else "no" if far.lo > NEAR else "open"


@dataclass(frozen=True, slots=True)
class Consensus:
    """The median onset of the locators that are heard.

    Attributes:
        locators: which.
        by_group: with groups resampled.
        by_prompt: with prompts resampled alone; narrower, and too narrow where prompts of a group are alike.
        drawn: (resample,) of ``by_group``.
    """

    locators: tuple[str, ...]
    by_group: Estimate
    by_prompt: Estimate
    drawn: Float[ndarray, " resample"]


def consensus(found: Sequence[Witness]) -> Consensus | None:
    """The consensus of the locators that read and are heard; None with fewer than `FEWEST` of them."""
    heard = [t for t in found if t.heard and not t.curve.locator.startswith(CAUSAL)]
    if len(heard) < FEWEST:
        return None
    value = float(np.median([t.onset.value for t in heard]))
    n = max(t.curve.n for t in heard)

    def medians(curves: Sequence[Curve]) -> Float[ndarray, " resample"]:
        drawn = [curve.drawn_onsets() for curve in curves]
        shortest = min(map(len, drawn))
        return np.asarray(np.median([d[:shortest] for d in drawn], axis=0))

    by_group, by_prompt = medians([t.curve for t in heard]), medians([t.ungrouped or t.curve for t in heard])
    whole, alone = (Estimate(value, *layer_interval(drawn), n) for drawn in (by_group, by_prompt))
    return Consensus(tuple(t.curve.locator for t in heard), whole, alone, by_group)


def sentences(found: Sequence[Witness], agreed: Consensus | None, decided: Mapping[str, Estimate]) -> list[str]:
    """What the tribunal says in words: the patches, the consensus, and who disagrees.

    Args:
        found: all witnesses.
        agreed: the consensus.
        decided: onset of the sufficiency and necessity curves, where they show any effect.
    """
    lines = [
        f"Patching twins at {position} begins to turn the model round at layer {_interval(onset)}."
        for position, onset in decided.items()
    ]
    if agreed is None:
        lines.append("No consensus: fewer than three locators are free of red flags of their own.")
    else:
        lines.append(
            f"Consensus of {len(agreed.locators)} locators ({', '.join(agreed.locators)}): the two kinds of prompts "
            f"part at layer {_interval(agreed.by_group)} (groups resampled; prompts alone "
            f"[{agreed.by_prompt.lo:.0f}, {agreed.by_prompt.hi:.0f}])."
        )
    flagged = {t.curve.locator: t.flags for t in found if t.flags}
    lines += [f"Red flag, {flag}: {', '.join(n for n, f in flagged.items() if flag in f)}." for flag in
              (NEVER, ALIKE, UNSTABLE) if any(flag in f for f in flagged.values())]  # fmt: skip
    far = [t for t in found if NOT_CAUSAL in t.flags]
    if far and decided:
        first = next(iter(decided.values())).value
        early = [t.curve.locator for t in far if t.onset.value < first]
        late = [t.curve.locator for t in far if t.onset.value > first]
        if early:
            lines.append(
                f"{', '.join(early)} point more than {NEAR} layers below that: what they read is known there already "
                "(harm, or what the answer will be), but putting it in changes no answer yet."
            )
        if late:
            lines.append(
                f"{', '.join(late)} point more than {NEAR} layers above: what they see grows after the decision."
            )
    return lines


def _interval(onset: Estimate) -> str:
    return f"{onset.value:.0f} [{onset.lo:.0f}, {onset.hi:.0f}]"
