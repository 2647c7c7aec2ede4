"""The tribunal on planted curves, and the claim on planted patches."""

import numpy as np
import pytest

from analyses.decision import decision_claim
from analyses.locators.causal_patch import PatchEffects
from analyses.locators.curve import Curve
from analyses.locators.firing import Firing
from analyses.sample import Sample
from analyses.tribunal import (
    ALIKE,
    NEVER,
    NOT_CAUSAL,
    UNSTABLE,
    Witness,
    agreement_table,
    consensus,
    flags,
    verdict_table,
)
from interp.prompts import PromptSet, user_prompt
from interp.stats import Estimate

TOP, TWINS = 20, 24
LAYERS = tuple(range(TOP + 1))
ORIGIN = {"prompts": "p", "code": "c", "seed": 0}
HARMFUL = np.arange(2 * TWINS) % 2 == 0


def curve(name, onset, *, spread=0.0, height=1.0, seed=0):
    """A step at a layer, which moves about in the resamples, and a gentle rise behind it."""
    rng = np.random.default_rng(seed)
    steps = onset + rng.normal(size=400) * spread
    rise = height * (1 + np.asarray(LAYERS) / 50)
    drawn = rise * (np.asarray(LAYERS) >= steps[:, None]) + rng.normal(size=(400, len(LAYERS))) * 0.01
    return Curve(name, LAYERS, rise * (np.asarray(LAYERS) >= onset), drawn, "nats", 100, "harmful - harmless")


def firing(harmful, harmless):
    fires = np.zeros((2 * TWINS, len(LAYERS)), dtype=bool)
    fires[HARMFUL, 5] = np.arange(TWINS) < harmful * TWINS
    fires[~HARMFUL, 5] = np.arange(TWINS) < harmless * TWINS
    return Firing("rule", LAYERS, fires)


DECIDED = Estimate(12.0, 12.0, 12.0, 10)


@pytest.mark.parametrize(
    ("given", "rule", "decided", "expected"),
    [
        (curve("good", 11), None, DECIDED, []),
        (curve("early", 5), None, DECIDED, [NOT_CAUSAL]),
        (curve("good", 11), None, None, [NOT_CAUSAL]),
        (curve("loose", 11, spread=2.5), None, DECIDED, [UNSTABLE]),
        (curve("flat", 11, height=0.0), None, DECIDED, [NEVER]),
        (curve("rule", 11), firing(1.0, 0.9), DECIDED, [ALIKE]),
        (curve("rule", 11), firing(0.9, 0.1), DECIDED, []),
        (curve("causal_patch sufficiency", 3), None, DECIDED, []),
    ],
    ids=["good", "early", "no patch", "loose", "flat", "alike", "specific", "patch"],
)
def test_flags_say_what_is_wrong(given, rule, decided, expected):
    assert flags(given, TOP, decided, rule, HARMFUL) == expected


def says(given, *wrong):
    return Witness(given, None, "none", "t_post", wrong)


def test_the_consensus_hears_those_without_flags_of_their_own():
    found = [says(curve(str(k), k, seed=k)) for k in (9, 10, 14)]
    found += [says(curve("loose", 2, spread=6), UNSTABLE), says(curve("causal_patch", 3))]
    agreed = consensus(found)
    assert agreed.locators == ("9", "10", "14") and agreed.by_group.value == 10
    assert agreed.by_group.lo <= 10 <= agreed.by_group.hi
    assert consensus(found[:2]) is None


def test_agreement_is_yes_no_or_open():
    found = [says(curve("a", 9)), says(curve("b", 10, seed=1)), says(curve("c", 15, seed=2))]
    found += [says(curve("d", 12, spread=3, seed=3)), says(curve("flat", 9, height=0.0))]
    table = agreement_table(found).set_index(["first", "second"])["agree"]
    assert table[("a", "b")] == "yes" and table[("a", "c")] == "no" and table[("a", "d")] == "open"
    assert len(verdict_table(found)) == 5


def sample():
    prompts = [
        user_prompt(f"p{i}", f"text {i}", label="harmful" if h else "harmless", group=f"g{i // 2}")
        for i, h in enumerate(HARMFUL)
    ]
    return Sample.of(PromptSet("planted", tuple(prompts)), seed=0)


def effects(layer, *, size=5.0, placebo=0.0, seed=0):
    rng = np.random.default_rng(seed)
    sign = np.where(HARMFUL, -1.0, 1.0)[:, None]
    noise = lambda: rng.normal(size=(2 * TWINS, TOP)) * 0.3  # noqa: E731
    step = np.arange(1, TOP + 1) >= layer
    groups = tuple(f"g{i // 2}" for i in range(2 * TWINS))
    moved, strangers = sign * size * step + noise(), sign * placebo * step + noise()
    return PatchEffects(tuple(range(1, TOP + 1)), HARMFUL, groups, np.where(HARMFUL, 2.0, -3.0), moved, strangers)


def claim(found, refused):
    known = {"family": "policy", "position": "t_post", "top_layer": TOP, "provenance": ORIGIN}
    return decision_claim(found, sample(), refused, **known)


def failed(found):
    return [control.name for control in found.controls if not control.passed]


def test_a_planted_decision_is_claimed_at_its_layer():
    found = claim(effects(13), HARMFUL)
    assert found.established and (found.lo, found.hi) == (13, 13)
    assert "decided in layer 13, at" in found.verdict
    assert found.record()["position"] == "t_post"


def test_what_keeps_a_claim_from_being_made():
    assert "refuses" in failed(claim(effects(13), np.zeros_like(HARMFUL)))
    assert "specificity" in failed(claim(effects(13), np.ones_like(HARMFUL)))
    assert failed(claim(effects(13, placebo=4.0), HARMFUL)) == ["placebo"]
    nothing = failed(claim(effects(13, size=0.0), HARMFUL))
    assert {"permutation", "placebo"} <= set(nothing)


def test_nulls_make_no_claims():
    assert not any(claim(effects(13, size=0.0, seed=seed), HARMFUL).established for seed in range(40))
