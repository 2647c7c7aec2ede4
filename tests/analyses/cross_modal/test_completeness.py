"""Planted transplants: what is restored is found restored, what is not is not, and a way of no length has no number."""

from dataclasses import replace

import numpy as np
import pytest

from analyses.cross_modal.completeness import BEYOND, COMPLETENESS, EFFECT, Transplants, arms_table, transplant_table
from analyses.cross_modal.transplant import (
    ALL,
    DIRECTIONS,
    LAST,
    NECESSITY,
    NOISE,
    OWN,
    SHUFFLED,
    SLOT,
    SOURCES,
    STRANGER,
    SUFFICIENCY,
    TWIN,
    Plan,
)
from analyses.cross_modal.transplant_claims import sentences, span, transplant_claims

LAYERS, ROWS = (0, 4, 8, 12), 24
PROVENANCE = {"prompts": "p", "code": "c", "seed": 0}


def planted(share, *, gap=6.0, placebo=0.05, noise=0.2, rows=ROWS, seed=0, positions=(SLOT, LAST)):
    """Transplants that go ``share`` of the way, by position and layer; placebos go ``placebo`` of it."""
    rng = np.random.default_rng(seed)
    plan = Plan(LAYERS, positions, SOURCES, LAYERS)
    image = rng.normal(-8, 1, rows)
    caption = image + gap + rng.normal(0, 0.5, rows)
    found = {}
    for direction in DIRECTIONS:
        base, goal = (image, caption) if direction == SUFFICIENCY else (caption, image)
        gone = np.stack([np.stack([np.full(len(LAYERS), placebo)] * len(positions))] * len(SOURCES))
        gone[0] = share
        way = (goal - base)[:, None]
        cells = base[:, None] + gone[:, :, None, :] * way + rng.normal(0, noise, (*gone.shape[:2], rows, len(LAYERS)))
        found[direction] = cells
    return Transplants(plan, tuple(f"c{i // 2}" for i in range(rows)), image, caption, found)


def answered(found, *, works=True):
    """Answers that follow the log-odds, or do not."""
    no, yes = np.zeros(len(found.units)), np.ones(len(found.units))
    judged = {(SUFFICIENCY, "", "", -1): no, (NECESSITY, "", "", -1): yes}
    for position in found.plan.positions:
        for layer in found.plan.layers:
            judged[SUFFICIENCY, position, OWN, layer] = yes if works else no
            judged[NECESSITY, position, OWN, layer] = no if works else yes
    return judged


EARLY_SLOT = np.array([[1.0, 0.9, 0.1, 0.0], [0.0, 0.1, 0.8, 1.0]])


def test_what_goes_the_whole_way_is_complete_and_placebos_are_not():
    found = planted(EARLY_SLOT)
    for direction in DIRECTIONS:
        band = found.completeness(direction, OWN, SLOT)
        lo, hi = band.interval
        np.testing.assert_allclose(band.value, EARLY_SLOT[0], atol=0.05)
        assert (lo <= band.value).all() and (band.value <= hi).all() and (hi - lo < 0.1).all()
        for name in (TWIN, STRANGER, NOISE, SHUFFLED):
            np.testing.assert_allclose(found.completeness(direction, name, SLOT).value, 0.05, atol=0.05)
        assert (found.beyond(direction, TWIN, SLOT).value[:2] > 4).all()


def test_the_span_is_where_the_way_is_gone():
    found = planted(EARLY_SLOT)
    assert span(found, SUFFICIENCY, SLOT).layers == (0, 4) and span(found, SUFFICIENCY, SLOT).passes
    assert span(found, NECESSITY, LAST).layers == (8, 12)


def test_claims_are_made_of_what_was_planted_and_of_nothing_else():
    found = planted(EARLY_SLOT)
    claims = {(c.locator, c.position): c for c in transplant_claims(found, answered(found), family="f",
              provenance=PROVENANCE)}  # fmt: skip
    assert all(c.established for c in claims.values()) and len(claims) == 4
    slot = claims["transplant, sufficiency", SLOT]
    assert (slot.onset, slot.lo, slot.hi) == (0, 0, 4) and "layers 0-4 of slot" in slot.statement
    assert slot.record()["established"]
    null = planted(np.full((2, 4), 0.05))
    assert not any(c.established for c in transplant_claims(null, answered(null), family="f"))


@pytest.mark.parametrize(
    ("change", "control"),
    [
        ({"placebo": 0.95}, "placebo: twin's"),
        ({"gap": 0.0}, "arms differ"),
        ({"noise": 60.0}, "interval"),
    ],
)
def test_one_broken_rule_is_enough_and_is_named(change, control):
    found = planted(EARLY_SLOT, **change)
    claims = transplant_claims(found, answered(found), family="f")
    assert not any(c.established for c in claims)
    failed = {k.name for k in claims[0].controls if not k.passed}
    assert control in failed and control in claims[0].verdict


def test_log_odds_that_no_answer_follows_are_no_claim():
    found = planted(EARLY_SLOT)
    for claims in (
        transplant_claims(found, answered(found, works=False), family="f"),
        transplant_claims(found, {}, family="f"),
    ):
        assert {k.name for k in claims[0].controls if not k.passed} == {"answers"}


def test_between_arms_that_do_not_differ_there_is_no_fraction():
    found = planted(EARLY_SLOT)
    same = replace(found, caption=found.image)
    table = transplant_table(same)
    fractions = table[table["measure"] == COMPLETENESS]
    assert fractions[["value", "lo", "hi"]].isna().all().all()
    assert not table[table["measure"] == EFFECT]["value"].isna().any()
    assert "do not differ" in sentences(same, ())[0]


def test_pairs_shuffled_between_kinds_leave_nothing_beyond_the_twin():
    found, rng = planted(EARLY_SLOT), np.random.default_rng(1)
    swapped = rng.random(ROWS) < 0.5
    for cells in found.found.values():
        own, twin = (SOURCES.index(name) for name in (OWN, TWIN))
        cells[own][:, swapped], cells[twin][:, swapped] = cells[twin][:, swapped].copy(), cells[own][:, swapped].copy()
    for direction in DIRECTIONS:
        lo, hi = found.beyond(direction, TWIN, SLOT).interval
        assert ((lo < 0) & (hi > 0)).all()
    assert not any(c.established for c in transplant_claims(found, answered(found), family="f"))


def test_the_table_holds_what_was_run_and_says_n():
    found = planted(EARLY_SLOT)
    fewer = replace(found, plan=replace(found.plan, placebo_layers=(4, 8)))
    table = transplant_table(fewer)
    assert set(table[table["source"] == TWIN]["layer"]) == {4, 8}
    assert set(table[table["source"] == OWN]["layer"]) == set(LAYERS)
    assert (table["n"] == ROWS).all() and set(table["measure"]) == {EFFECT, COMPLETENESS, BEYOND}
    assert ((table["lo"] <= table["value"]) & (table["value"] <= table["hi"])).all()
    assert arms_table(found)["value"].iloc[2] == pytest.approx(6, abs=0.5)


def test_strangers_are_reported_beside_and_do_not_decide():
    found = planted(EARLY_SLOT)
    for cells in found.found.values():
        cells[SOURCES.index(STRANGER)] = cells[SOURCES.index(OWN)]
    claims = transplant_claims(found, answered(found), family="f")
    assert all(c.established for c in claims)
    assert any("another pair of the same kind 1.0" in line or "kind 0.9" in line for line in sentences(found, claims))
    assert ALL not in {c.position for c in claims}
