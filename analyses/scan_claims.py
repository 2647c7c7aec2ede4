"""The claims of a scan, each with the controls it must pass.

They are claims about reading: that a rule sees refusal from some layer on. Whether the model uses what can be read
there is another question, and the statements say so.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.firing import Firing
from analyses.sample import Sample
from interp.stats import Estimate, max_permutation, wilson
from interp.study import Claim, Control

MIN_FIRED = 0.5
"""A rule that misses half of the harmful prompts locates nothing."""
MIN_DIFFERENCE = 0.5
"""Least lower bound of "fired on harmful minus fired on harmless" for a rule to be called specific."""
MAX_WIDTH = 0.2
"""Widest interval of the onset, as a share of the model's depth."""
ALPHA = 0.05


def rule_claim(rule: Firing, sample: Sample, *, family: str, provenance: dict[str, Any]) -> Claim:
    """The claim that a rule reads refusal from its median first layer on, over labelled prompts."""
    fired, harmful = rule.fired_by.astype(np.float64), sample.harmful
    share = wilson(int(fired[harmful, -1].sum()), int(harmful.sum()))
    (value, lo, hi), _ = sample.difference(fired[:, -1])
    onset = rule.median_onset(Contrast.of(sample))
    controls = (
        Control("fires", share.lo > MIN_FIRED, f"on {_interval(share)} of harmful prompts", "lower bound > 50%"),
        Control(
            "specificity",
            bool(lo > MIN_DIFFERENCE),
            f"harmful minus harmless {value:.0%} [{lo:.0%}, {hi:.0%}]",
            "lower bound > 50%",
        ),
        _permutation(fired, sample),
        _narrow(onset, rule.layers[-1]),
    )
    return _claim(rule.locator, family, onset, controls, len(sample), provenance)


def curve_claim(
    locator: str,
    layers: tuple[int, ...],
    values: Float[ndarray, "prompt layer"],
    sample: Sample,
    *,
    family: str,
    provenance: dict[str, Any],
) -> Claim:
    """The claim that a curve is higher on harmful prompts from the layer on at which it reaches half its peak."""
    curve = Curve.of_scores(locator, layers, values, Contrast.of(sample), unit="nats")
    value, (lo, hi) = curve.values, curve.interval
    best = int(np.abs(value).argmax())
    onset = curve.onset()
    controls = (
        Control(
            "separates",
            bool(lo[best] > 0),
            f"largest difference {value[best]:.2f} [{lo[best]:.2f}, {hi[best]:.2f}] nats at layer {layers[best]}",
            "lower bound > 0",
        ),
        _permutation(values, sample),
        _narrow(onset, layers[-1]),
    )
    return _claim(locator, family, onset, controls, len(sample), provenance)


def _permutation(values: Float[ndarray, "prompt layer"], sample: Sample) -> Control:
    p = max_permutation(values, sample.harmful, sample.groups, seed=sample.seed)
    return Control("permutation", p <= ALPHA, f"p = {p:.3f} over all layers", f"p <= {ALPHA}")


def _narrow(onset: Estimate, top_layer: int) -> Control:
    width = onset.hi - onset.lo if np.isfinite([onset.lo, onset.hi]).all() else np.inf
    found = f"onset {_bound(onset.value)} [{_bound(onset.lo)}, {_bound(onset.hi)}]"
    needed = f"at most {MAX_WIDTH:.0%} of {top_layer} layers wide"
    return Control("interval", bool(width <= MAX_WIDTH * top_layer), found, needed)


def _claim(
    locator: str, family: str, onset: Estimate, controls: tuple[Control, ...], n: int, provenance: dict[str, Any]
) -> Claim:
    value, lo, hi = (b if np.isfinite(b) else None for b in (onset.value, onset.lo, onset.hi))
    return Claim(
        statement=f"Refusal ({family}) is readable by {locator} from layer {_bound(onset.value)} "
        f"[{_bound(onset.lo)}, {_bound(onset.hi)}] on; whether the model uses it there was not tested.",
        locator=locator,
        family=family,
        position="t_post",
        onset=value,
        lo=lo,
        hi=hi,
        n=n,
        controls=controls,
        provenance=provenance,
    )


def _interval(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.lo:.0%}, {share.hi:.0%}]"


def _bound(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"
