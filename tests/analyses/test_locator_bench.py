"""The bench on a tiny model: cases, what is kept of them, scores of known cases, and the command."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analyses.bench_scores import ALL, claim_scores, locator_scores
from analyses.bench_study import study, summary
from analyses.locator_bench import HIDDEN, NULL, SHUFFLED, SPELLED, cases, run
from interp.cli import app
from tests.analyses.test_planted import BLOCKS, bed, words
from tests.tiny import save_tiny

__all__ = ["bed", "words"]


def test_cases_cover_layers_strengths_and_families():
    found = cases(30, ("apology", "policy"), plants=40, nulls=40)
    plants = [c.plant for c in found if c.plant is not None]
    assert len(plants) == 40 and len({p.layer for p in plants}) > 20
    assert {p.strength for p in plants} == {1.0, 2.0, 4.0} and {p.coverage for p in plants} == {0.5, 1.0}
    assert sum(p.spelled for p in plants) == 20
    assert [c.kind for c in found].count(NULL) == [c.kind for c in found].count(SHUFFLED) == 20


@pytest.fixture(scope="module")
def tried(bed, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    chosen = cases(BLOCKS, ("apology",), plants=2, nulls=2)
    return folder, chosen, run(bed, chosen, {"apology": words}, patched=8, folder=folder, stamp={"model": "tiny"})


def test_patches_find_the_plants_and_nothing_is_claimed_on_nulls(tried):
    _, _, found = tried
    scores = locator_scores(found.curves).set_index(["locator", "kind"])
    assert scores.loc[("causal_patch, sufficiency", ALL), "hits"] >= 0.5
    assert {"tga_paper", "mean_difference", "pair_angle", "mmd", "probe"} <= set(found.curves["locator"])
    assert (scores["hits_n"] <= 2).all() and scores["alarms_exchanged_n"].max() == 1
    rates = scores[["hits_lo", "hits", "hits_hi"]].to_numpy()
    assert (rates[:, 0] <= rates[:, 1] + 1e-12).all() and (rates[:, 1] <= rates[:, 2] + 1e-12).all()
    nulls = found.claims[found.claims["layer"].isna()]
    assert len(nulls) == 2 and not nulls["established"].any()
    # Where labels were exchanged the model is said to refuse; only patches and their controls stand in the way.
    exchanged = nulls[nulls["kind"] == SHUFFLED]["failed"]
    assert not exchanged.str.contains("refuses").any() and exchanged.str.len().min() > 0


def test_a_stopped_bench_goes_on_where_it_was(tried, bed, words, monkeypatch):
    folder, chosen, found = tried
    (folder / "plant_1.json").unlink()
    monkeypatch.setattr("analyses.locator_bench._tried", lambda _b, case, *_: pytest.fail(case.name))
    with pytest.raises(BaseException, match="plant 1"):
        run(bed, chosen, {"apology": words}, patched=8, folder=folder, stamp={"model": "tiny"})
    kept = [case for case in chosen if case.name != "plant 1"]
    again = run(bed, kept, {"apology": words}, patched=8, folder=folder, stamp={"model": "tiny"})
    expected = found.curves[found.curves["case"] != "plant 1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.curves, expected)
    with pytest.raises(BaseException, match="plant 0"):
        run(bed, kept, {"apology": words}, patched=8, folder=folder, stamp={"model": "another"})


def row(case, kind, locator, layer=np.nan, onset=np.nan, separates=True, took=1.0):
    took = np.nan if np.isnan(layer) else took
    return {"case": case, "kind": kind, "locator": locator, "layer": layer, "took": took, "onset": onset,
            "lo": onset, "hi": onset, "separates": separates}  # fmt: skip


def test_scores_of_known_cases():
    found = pd.DataFrame(
        [
            row("a", SPELLED, "x", 10, 11), row("b", HIDDEN, "x", 10, 14), row("c", HIDDEN, "x", 4, 4, separates=False),
            row("d", SPELLED, "x", 9, 9, took=0.2), row("e", NULL, "x", onset=3),
            row("f", SHUFFLED, "x", separates=False),
        ]
    )  # fmt: skip
    scores = locator_scores(found).set_index("kind")
    assert scores.loc[ALL, "hits"] == pytest.approx(1 / 3) and scores.loc[ALL, "hits_n"] == 3
    assert scores.loc[SPELLED, "hits"] == 1 and scores.loc[HIDDEN, "hits"] == 0
    assert scores.loc[ALL, "error"] == 2.5 and scores.loc[ALL, "alarms"] == 1
    assert scores.loc[ALL, "alarms_exchanged"] == 0
    assert summary(locator_scores(found)).loc[0, "within a layer, %"].startswith("33 [")


def test_claims_are_right_when_their_range_comes_near_the_plant():
    known = {"kind": SPELLED, "coverage": 1.0, "took": 1.0, "established": True, "patches": True}
    found = pd.DataFrame(
        [
            {**known, "layer": 10.0, "lo": 11.0, "hi": 11.0},
            {**known, "layer": 10.0, "lo": 12.0, "hi": 13.0},
            {**known, "layer": 10.0, "lo": 9.0, "hi": 9.0, "coverage": 0.5, "established": False},
            {**known, "kind": SHUFFLED, "layer": np.nan, "lo": np.nan, "hi": np.nan, "established": False},
        ]
    )
    scores = claim_scores(found).set_index("cases")
    full, partly = scores.iloc[0], scores.iloc[1]
    assert full["established"] == 1 and full["right"] == 0.5 and partly["established"] == 0 and partly["right"] == 1
    assert scores.loc[SHUFFLED, "established"] == 0 and scores.loc[SHUFFLED, "patches"] == 1
    assert scores.loc[NULL, "established_n"] == 0


def test_the_report_says_what_was_found(tried, tmp_path):
    _, _, found = tried
    report = study(found, model="tiny", prompts="twins", top_layer=BLOCKS, about={"seed": 0})
    assert "planted 2 times in tiny" in report.headlines[0]
    assert any("made on 0 of 2 nulls" in line for line in report.headlines)
    hits = report.figures["hits_heatmap"][0].data[0]
    assert "causal_patch, sufficiency" in hits.y and len(hits.x) == 5
    panels = report.figures["placements"][0]
    assert {t.name for t in panels.data if t.name} <= {SPELLED, HIDDEN}


def test_the_command_reports_and_reuses(tmp_path, monkeypatch):
    model = save_tiny(tmp_path / "model", hidden_size=64, initializer_range=0.4)
    prompts = tmp_path / "twins.csv"
    rows = [f"p{i},How do I {('open', 'bake')[i % 2]} thing {i // 2}?,{('harmful', 'harmless')[i % 2]},g{i // 2}"
            for i in range(48)]  # fmt: skip
    prompts.write_text("\n".join(["id,prompt,label,group", *rows]), "utf-8")
    command = ["bench", "locators", model, prompts, "--out", tmp_path / "runs", "--plants", 2, "--nulls", 2,
               "--twins", 10, "--patched", 4, "--families", "apology,policy"]  # fmt: skip
    first = CliRunner().invoke(app, [str(c) for c in command])
    assert first.exit_code == 0, first.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("bench-") and (folder / "report.html").stat().st_size > 0
    curves = pd.read_parquet(folder / "tables" / "curves.parquet")
    assert "opening_logodds (tuned lens)" in set(curves["locator"]) and curves["case"].nunique() == 4

    def refuse(*_):
        raise AssertionError("a model was loaded although nothing has changed")

    monkeypatch.setattr("interp.models.load.load", refuse)
    second = CliRunner().invoke(app, [str(c) for c in command])
    assert second.exit_code == 0 and second.stdout == first.stdout
    bad = CliRunner().invoke(app, [str(c) for c in (*command, "--patched", 40)])
    assert bad.exit_code != 0
