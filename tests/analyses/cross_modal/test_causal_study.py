"""The study of planted observations: what was planted is said, claimed and drawn, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses.cross_modal import causal_study
from analyses.cross_modal.ladder import ANY_IMAGE, THIS_CONTENT, Ladder, moved_table, rung_table, step_table
from analyses.cross_modal.observation import Observed
from analyses.cross_modal.placement import NOT_LINKED
from analyses.cross_modal.rungs import NONE, RUNGS
from analyses.cross_modal.transfer import IMAGE
from analyses.cross_modal.transplant import LAST, OWN, SLOT
from interp.prompts.families import load_family
from interp.report import write_study
from interp.study import LAYERS_COLUMNS
from tests.analyses.cross_modal.test_completeness import EARLY_SLOT, LAYERS, answered, planted
from tests.analyses.cross_modal.test_transfer import PER_SCENE, RATES
from tests.analyses.cross_modal.test_transfer import planted as planted_answers

PROVENANCE = {"prompts": "p", "code": "c", "seed": 0}
PAIRS = 30


def ladder(*, any_image=-3.0, content=2.0, noise=0.3):
    """A ladder on which any image moves the log-odds by one step, and the real picture by another."""
    rng = np.random.default_rng(0)
    rise = np.array([0, *[any_image] * 5, any_image + content])
    log_odds = -4 + rise + rng.normal(0, noise, (PAIRS, len(RUNGS)))
    log_odds[:, 0] = -4
    refused = (rng.random((PAIRS, len(RUNGS))) < np.where(rise > -2, 0.9, 0.05)).astype(float)
    moved = np.abs(rng.normal(1, 0.1, (PAIRS, len(RUNGS), len(LAYERS))))
    moved[:, 0] = 0
    units = tuple(f"c{i // 2}" for i in range(PAIRS))
    return Ladder(RUNGS, units, LAYERS, log_odds, refused, moved, (1, 1, *[PAIRS] * 5))


def observed(**changes):
    gone, own = planted(EARLY_SLOT), planted_answers(RATES)
    n = 4 * PER_SCENE
    places = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "scene": np.repeat(["gun", "knife", "alcohol", "porn-symbol"], PER_SCENE),
            "concept": [f"c{i // 2}" for i in range(n)],
            "answer": "a knife",
            "named": True,
            "retrieved": False,
            "drift": 0.1,
            "place": NOT_LINKED,
        }
    )
    thresholds = {
        "first layer": 3.0, "last layer": 5.0, "drift that counts": 0.4, "layer of retrieval": 2.0,
        "twins drifted": 0.05, "named by chance": 0.01, "retrieved by chance": 0.05,
    }  # fmt: skip
    seen = Observed((), own, load_family("apology"), True, ladder(), gone, answered(gone), places, thresholds)
    return replace(seen, **changes)


def study_of(seen):
    return causal_study.run(seen, model="m", pairs="p", provenance=PROVENANCE)


def test_steps_are_paired_and_find_what_was_planted():
    found = ladder()
    steps = step_table(found)
    odds = steps[steps["measure"] == "log_odds"].set_index(["lower", "upper"])
    for step, expected in ((ANY_IMAGE, -3), (THIS_CONTENT, 2), ((NONE, RUNGS[-1]), -1)):
        row = odds.loc[step]
        assert row["lo"] <= expected <= row["hi"] and row["hi"] - row["lo"] < 0.6 and row["n"] == PAIRS
    between = odds.loc[("mean colour", "random colour")]
    assert between["lo"] < 0 < between["hi"]
    rungs = rung_table(found).set_index(["rung", "measure"])
    assert rungs.loc[(NONE, "log_odds")][["value", "lo", "hi"]].tolist() == pytest.approx([-4, -4, -4])
    assert rungs.loc[(NONE, "log_odds")]["distinct"] == 1
    assert set(moved_table(found)["rung"]) == set(RUNGS[1:])


def test_a_ladder_survives_its_file():
    found = ladder()
    again = Ladder.of_arrays(found.arrays(), found.units)
    assert again.layers == found.layers and again.distinct == found.distinct
    np.testing.assert_array_equal(again.moved, found.moved)


def test_the_study_claims_what_was_planted_and_is_written(tmp_path):
    study = study_of(observed())
    claims = {(c.locator, c.position): c for c in study.claims}
    assert claims["image ladder", "answer"].established
    assert claims["transplant, sufficiency", SLOT].established and claims["transplant, necessity", LAST].established
    gap = claims["transfer efficiency", "answer"]
    assert {k.name for k in gap.controls if not k.passed} == {"efficiency"}  # the gun reaches pictures here
    page = write_study(study, tmp_path).read_text("utf-8")
    for words in ("Any image", "This content", "Worst scene", "Transfer efficiency", "restores refusal"):
        assert any(words in line for line in study.headlines), words
        assert words in page
    assert set(study.drawn_from) == set(study.figures)
    assert all(name in study.tables for names in study.drawn_from.values() for name in names)


def test_where_safety_stays_in_text_the_gap_is_claimed():
    own = planted_answers({scene: {**arms, IMAGE: (0.05, 0.02)} for scene, arms in RATES.items() if scene != "bloody"})
    assert study_of(observed(answered=own)).claims[0].established
    blind = observed(answered=own)
    blind.placed["named"] = False
    claim = study_of(blind).claims[0]
    assert {k.name for k in claim.controls if not k.passed} == {"perceived"}


def test_nothing_moves_and_nothing_is_claimed():
    none = planted(np.zeros((2, 4)), placebo=0.0)
    seen = observed(ladder=ladder(any_image=0, content=0), transplants=none, judged=answered(none, works=False))
    study = study_of(seen)
    assert not any(claim.established for claim in study.claims[1:])
    assert any("Not established" in line for line in study.headlines)


def test_arms_that_do_not_differ_are_said_not_to(tmp_path):
    same = planted(EARLY_SLOT)
    same = replace(same, caption=same.image)
    study = study_of(observed(transplants=same, refuses=False))
    assert any("do not differ" in line for line in study.headlines)
    assert any("refused nothing" in note for note in study.notes)
    assert "The two arms do not differ" in study.figures["sufficiency_heatmap"][1]
    write_study(study, tmp_path)


def test_figures_show_the_numbers_of_their_tables():
    study = study_of(observed())
    map_, _ = study.figures["sufficiency_heatmap"]
    table = study.tables["transplants"]
    own = table[(table["direction"] == "sufficiency") & (table["measure"] == "completeness")]
    first = own[(own["position"] == SLOT) & (own["source"] == OWN)]
    np.testing.assert_allclose(np.asarray(map_.data[0].z, dtype=float)[0], first["value"], atol=1e-9)
    points, _ = study.figures["ladder"]
    rungs = study.tables["ladder"]
    np.testing.assert_allclose(points.data[0].x, rungs[rungs["measure"] == "log_odds"]["value"])
    np.testing.assert_allclose(
        points.data[0].error_x.array, (rungs["hi"] - rungs["value"])[rungs["measure"] == "log_odds"]
    )
    shares, _ = study.figures["transfer_heatmap"]
    assert list(shares.data[0].x)[:2] == ["text, DSR", "text, over-refusal"]
    assert shares.data[0].y[-1] == "all scenes" and any(scene.endswith(" *") for scene in shares.data[0].y)


@pytest.mark.parametrize("name", ["transplants", "ladder_moved"])
def test_layer_tables_are_tidy(name):
    table = study_of(observed()).tables[name]
    assert {"layer", "value", "lo", "hi", "n"} <= set(table.columns) and {"layer", "value"} <= set(LAYERS_COLUMNS)
