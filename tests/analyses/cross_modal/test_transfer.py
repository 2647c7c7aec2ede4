"""Planted answers: efficiencies come out as planted, worst first, and what has no number says why."""

import numpy as np
import pytest

from analyses.cross_modal.resampled import difference_of
from analyses.cross_modal.transfer import (
    ALL_SCENES,
    CAPTION,
    DSR,
    EFFICIENCY,
    EXCESS,
    IMAGE,
    OVER_REFUSAL,
    TEXT,
    Answers,
    kappa_table,
    transfer_table,
)

NO, YES = "I'm sorry, but I can't help with that.", "A kitchen knife on a table."
PER_SCENE = 40


def planted(rates, *, seed=0):
    """Answers that refuse at a rate: by scene, by arm, (harmful, twin)."""
    rng, said = np.random.default_rng(seed), {TEXT: [], CAPTION: [], IMAGE: []}
    scenes, units, harmful = [], [], []
    for scene, arms in rates.items():
        for kind in (0, 1):
            for i in range(PER_SCENE):
                scenes.append(scene)
                units.append(f"{scene} {i // 2}")
                harmful.append(kind == 0)
                for arm, both in arms.items():
                    said[arm].append(NO if rng.random() < both[kind] else YES)
    return Answers(tuple(scenes), tuple(units), np.array(harmful), said)


RATES = {
    "gun": {TEXT: (1, 0), CAPTION: (0.95, 0), IMAGE: (0.8, 0)},
    "knife": {TEXT: (1, 0), CAPTION: (0.9, 0), IMAGE: (0.1, 0.1)},
    "alcohol": {TEXT: (0.9, 0), CAPTION: (0.5, 0), IMAGE: (0.4, 0)},
    "porn-symbol": {TEXT: (1, 0), CAPTION: (1, 0), IMAGE: (0, 0)},
    "bloody": {TEXT: (0, 0), CAPTION: (0, 0), IMAGE: (0, 0)},
}


def cell(table, scene, arm, measure, judge="families"):
    wanted = {"scene": scene, "arm": arm, "measure": measure, "judge": judge}
    (row,) = table[(table[list(wanted)] == list(wanted.values())).all(axis=1)].to_dict("records")
    return row


def test_efficiency_is_what_was_planted_within_its_interval():
    table = transfer_table(planted(RATES))
    for scene, expected in (("gun", 0.8), ("knife", 0.0), ("alcohol", 0.44)):
        row = cell(table, scene, IMAGE, EFFICIENCY)
        assert row["lo"] <= expected <= row["hi"] and row["lo"] <= row["value"] <= row["hi"] and not row["reason"]
    assert cell(table, "gun", TEXT, DSR)["value"] == 1 and cell(table, "gun", TEXT, DSR)["lo"] > 0.9
    assert cell(table, "gun", TEXT, DSR)["n"] == PER_SCENE
    assert cell(table, "knife", IMAGE, OVER_REFUSAL)["value"] == pytest.approx(0.1, abs=0.1)
    # The twins of the same arm are the floor: what is refused no more than they are transfers nothing.
    row = cell(table, "knife", IMAGE, EXCESS)
    assert row["lo"] < 0 < row["hi"]


def test_an_arm_that_refuses_everything_has_no_efficiency():
    everything = {"gun": {TEXT: (1, 0), CAPTION: (1, 0), IMAGE: (1, 1)}, "knife": RATES["knife"]}
    table = transfer_table(planted(everything))
    row = cell(table, "gun", IMAGE, EFFICIENCY)
    assert row["value"] == 0 and -0.2 < row["lo"] < -0.05 and 0.05 < row["hi"] < 0.2, "40 pairs are not certainty"
    excess = cell(table, "gun", TEXT, EXCESS)
    assert excess["value"] == 1 and 0.8 < excess["lo"] < 0.95 and excess["hi"] == 1


def test_where_text_refuses_nothing_there_is_a_reason_and_no_number():
    table = transfer_table(planted(RATES))
    row = cell(table, "bloody", IMAGE, EFFICIENCY)
    assert (
        np.isnan([row["value"], row["lo"], row["hi"]]).all()
        and "does not refuse more than on the twins" in row["reason"]
    )
    text_refuses_all = {"gun": {TEXT: (1, 1), CAPTION: (1, 0), IMAGE: (1, 0)}, "knife": RATES["knife"]}
    assert cell(transfer_table(planted(text_refuses_all)), "gun", IMAGE, EFFICIENCY)["reason"]


def test_the_worst_scene_stands_first_and_all_of_them_last():
    order = list(dict.fromkeys(transfer_table(planted(RATES))["scene"]))
    assert order[0] in ("knife", "porn-symbol") and order[-1] == ALL_SCENES
    assert order.index("alcohol") < order.index("gun") < order.index("bloody")


def test_symbols_are_marked_and_left_out_of_the_whole():
    table = transfer_table(planted(RATES))
    assert set(table[table["symbolic"]]["scene"]) == {"porn-symbol"}
    assert cell(table, ALL_SCENES, TEXT, DSR)["n"] == 4 * PER_SCENE


def test_answers_that_can_not_be_read_are_in_no_rate():
    answered = planted(RATES)
    answered.said[IMAGE][:5] = ["", "  ", "", "", ""]
    assert cell(transfer_table(answered), "gun", IMAGE, DSR)["n"] == PER_SCENE - 5


def test_two_judges_and_their_agreement():
    answered = planted(RATES)
    answered.said[IMAGE] = [s.replace("I'm sorry, but", "Our policy is clear:") for s in answered.said[IMAGE]]
    table, kappas = transfer_table(answered), kappa_table(answered)
    assert set(table["judge"]) == {"families", "harmbench"}
    assert list(kappas["arm"]) == [TEXT, CAPTION, IMAGE] and (kappas["kappa"].iloc[:2] == 1).all()
    assert (kappas["lo"] <= kappas["kappa"]).all() and (kappas["n"] == len(answered.units)).all()


def test_a_difference_that_no_resample_moves_is_not_certain():
    values, first, still = np.array([0.0, 0.0, 0.0]), np.array([True, True, False]), np.ones((9, 3))
    share, _ = difference_of(values, first, still)
    assert share.value == 0 and share.lo < 0 < share.hi, "Newcombe's"
    nats, _ = difference_of(values - 8, first, still, shares=False)
    assert nats.value == 0 and np.isnan([nats.lo, nats.hi]).all(), "unknown"
