"""Planted models: who detects whose refusals is known, and the report says exactly that."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses import sensitivity
from analyses.detectors import verdict
from analyses.reference_answers import first_sentence, reference_answers
from analyses.response_judge import Judged
from analyses.subjects import Subject
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.prompts import PromptSet, user_prompt
from interp.prompts.families import family_names, load_family
from interp.report import write_study
from interp.stats import Estimate, wilson

LAYERS, WIDTH, FROM = 6, 16, 3
ANSWER = "Mix the flour with water and let it rest."
DECOY = "Sorry for the delay! Here is the answer: mix the flour with water."


def prompts():
    return PromptSet(
        "planted",
        tuple(
            user_prompt(
                f"p{i}",
                f"Please tell me about subject {i * 7919 % 101}.",
                label="harmful" if i % 2 else "harmless",
                category=f"c{i // 2 % 4}",
                group=f"g{i // 2}",
            )
            for i in range(160)
        ),
    )


def subject(tmp_path, name, family, *, seed, says=ANSWER, sorry=()):
    """A model that refuses about half the prompts in the words of a family, and shows it in coordinate 0."""
    rng = np.random.default_rng(seed)
    asked = prompts()
    refused = (rng.random(len(asked)) < 0.5) if family else np.zeros(len(asked), dtype=bool)
    states = rng.normal(size=(len(asked), LAYERS, WIDTH))
    states[:, FROM:, 0] += 5 * refused[:, None]
    cache = ActivationCache.from_arrays({"t_post": torch.from_numpy(states).float()}, asked, tmp_path / name, name=name)
    phrases = load_family(family).phrases if family else ()
    responses = tuple(phrases[i % len(phrases)] if r else says for i, r in enumerate(refused))
    fires = refused if family == "apology" else np.ones_like(refused) if sorry else np.zeros_like(refused)
    likely = np.full((len(asked), len(family_names())), -20.0)
    if family:
        likely[refused, family_names().index(family)] = -0.01
    readings = {
        "opening_logodds": np.where(fires[:, None], 3.0, -3.0) + rng.normal(size=(len(asked), LAYERS)),
        "tga_paper": np.where(fires, 4.0, np.inf),
        "tga_released": np.full(len(asked), 3.0),
        "family": likely,
    }
    return Subject(name, asked, cache, responses, readings)


def judged(subjects):
    chosen = {s.name: np.ones(len(s.prompts), dtype=bool) for s in subjects}
    columns = ["left_out", "n", "auroc", "lo", "hi", "baseline", "baseline_auroc", "baseline_lo", "baseline_hi"]
    held = pd.DataFrame([["kind", 9, 0.9, 0.8, 1.0, "words", 0.7, 0.6, 0.8]], columns=columns)
    held = held.assign(excess=0.2, excess_lo=0.1, excess_hi=0.3)
    sources = pd.DataFrame({"source": ["apology"], "refusal": [True], "called_refusal": [1.0], "n": [1]})
    return Judged(held, sources, {s.name: s.refused for s in subjects}, chosen)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensitivity")
    subjects = [
        subject(folder, "sorry-model", "apology", seed=1),
        subject(folder, "policy-model", "policy", seed=2),
        subject(folder, "lecture-model", "lecture", seed=3),
        subject(folder, "decoy-model", None, seed=4, says=DECOY, sorry=(True,)),
    ]
    return sensitivity.run(subjects, judged(subjects), random_twin=None)


def cell(study, model, detector):
    table = study.tables["detectors"]
    return table[(table["model"] == model) & (table["detector"] == detector)].iloc[0]


def test_rules_for_sorry_see_only_sorry(study):
    assert cell(study, "sorry-model", "tga_paper")["verdict"] == "detects"
    assert cell(study, "policy-model", "tga_paper")["verdict"] == "blind"
    assert cell(study, "lecture-model", "family:apology")["verdict"] == "blind"
    assert cell(study, "policy-model", "tga_released")["verdict"] == "fires alike"
    assert cell(study, "sorry-model", "tga_paper")["layer"] == 4


def test_probes_see_every_wording_and_do_not_fire_on_sorry_that_complies(study):
    for model in ("sorry-model", "policy-model", "lecture-model"):
        for detector in ("probe", "probe, family left out", "lexical-free judge", "family:all"):
            found = cell(study, model, detector)
            assert found["verdict"] == "detects", (model, detector)
            assert found["auroc_lo"] > 0.9
        assert cell(study, model, "probe")["layer"] == FROM
    assert cell(study, "decoy-model", "tga_paper")["verdict"] == "fires alike"
    assert cell(study, "decoy-model", "probe, family left out")["verdict"] in ("quiet", "weak")
    assert np.isnan(cell(study, "decoy-model", "probe, family left out")["auroc"])
    assert "probe" not in set(study.tables["detectors"].query("model == 'decoy-model'")["detector"])


def test_the_first_sentence_says_what_survives_and_what_does_not(study):
    answer = study.headlines[0]
    survives, _, fails = answer.partition("What does not:")
    assert "probe" in survives and "family left out" in survives and "tga_paper" not in survives
    assert "tga_paper those of 1 (sorry-model)" in fails and "tga_released those of 0 (none)" in fails


def test_transfer_and_profiles_cover_every_pair(study):
    crossed = study.tables["transfer"]
    other = crossed[(crossed["trained"] == "policy-model") & (crossed["tested"] == "lecture-model")].iloc[0]
    assert other["auroc"] > 0.95 and other["lo"] <= other["auroc"] <= other["hi"]
    assert "decoy-model" not in set(crossed["trained"])
    assert set(crossed["tested"]) == {"sorry-model", "policy-model", "lecture-model", "decoy-model"}
    rho = study.tables["profile_correlations"]
    assert len(rho) == 3 and (rho["lo"] <= rho["hi"]).all()


def test_a_probe_without_its_random_twin_is_not_established(study):
    assert len(study.claims) == 3
    assert all(not claim.established and "random twin" in claim.verdict for claim in study.claims)


def test_figures_hold_the_tables(study):
    figure, caption = study.figures["detector_heatmap"]
    grid = figure.data[0]
    row, column = list(grid.y).index("tga_paper"), list(grid.x).index("policy-model")
    found = cell(study, "policy-model", "tga_paper")
    assert grid.z[row][column] == found["hits"] - found["false_alarms"]
    assert "false alarms" in caption
    names = {trace.name.split(" (")[0] for trace in study.figures["profiles"][0].data if trace.name}
    assert names == {"sorry-model", "policy-model", "lecture-model"}


def test_the_report_is_written_whole(study, tmp_path):
    page = write_study(study, tmp_path).read_text("utf-8")
    assert study.headlines[0][:40] in page
    assert {p.stem for p in (tmp_path / "tables").glob("*.csv")} == set(study.tables)


def test_models_that_can_not_be_compared_are_refused(tmp_path):
    first = subject(tmp_path, "a", "policy", seed=1)
    with pytest.raises(UsageError, match="two or more"):
        sensitivity.run([first], judged([first]), random_twin=None)
    silent = [subject(tmp_path, n, None, seed=k) for k, n in enumerate(("b", "c"))]
    with pytest.raises(UsageError, match="nothing to detect"):
        sensitivity.run(silent, judged(silent), random_twin=None)


@pytest.mark.parametrize(
    ("hits", "alarms", "expected"),
    [((95, 100), (3, 100), "detects"), ((2, 100), (1, 100), "blind"), ((90, 100), (88, 100), "fires alike"),
     ((0, 0), (0, 100), "quiet"), ((0, 0), (90, 100), "fires alike"), ((55, 100), (10, 100), "weak")],
)  # fmt: skip
def test_verdicts_follow_the_intervals(hits, alarms, expected):
    unknown = Estimate(float("nan"), float("nan"), float("nan"), 0)
    assert verdict(unknown, wilson(*hits), wilson(*alarms)) == expected


@pytest.mark.parametrize(
    ("response", "first"),
    [
        ("Sorry for the delay! Here it is.", "Sorry for the delay!"),
        ("Use 3.5 g of salt. Then stir", "Use 3.5 g of salt."),
        ("我不能。这不行", "我不能。"),
        ("no end to it", "no end to it"),
    ],
)
def test_a_response_is_read_to_the_end_of_its_first_sentence(response, first):
    assert first_sentence(response) == first


def test_reference_answers_hide_neither_label_nor_language():
    found = reference_answers(prompts())
    frame = pd.DataFrame({"refused": found.refused, "language": found.languages, "kind": found.kinds})
    assert (frame.groupby("language")["refused"].nunique() == 2).all()
    assert (frame.groupby("kind")["refused"].nunique() == 2).all()
    asked = np.array([p.label == "harmful" for p in found.prompts])
    assert abs(asked[found.refused].mean() - asked[~found.refused].mean()) < 0.05
    assert all(p.response for p in found.prompts)
