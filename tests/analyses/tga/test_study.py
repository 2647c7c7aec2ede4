"""Trainings whose effect is planted: a gain of the loss is claimed, everything that only looks like one is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.cross_modal.transfer import ARMS, DSR, EXCESS, IMAGE, OVER_REFUSAL, default_judges
from analyses.tga.evaluation import Evaluated
from analyses.tga.groups import NAMED, ODDS
from analyses.tga.runs import BEFORE, Run, require_comparable, require_unseen
from analyses.tga.study import run
from analyses.tga.tables import ODDS_GAP, SEEN_DSR, TEXT_KL
from interp.errors import UsageError
from interp.geometry import Arms, alignment
from interp.prompts.pairs import Pair
from interp.stats import wilson
from interp.tga.assembly import picture_of
from interp.tga.variants import VARIANTS

SCENES = ("gun", "knife", "porn-symbol")
PER_SCENE, ORDINARY, SEEDS = 64, 10, 3
ABOUT = {"prompts": "p", "code": "c", "seed": 0}


def pairs():
    found = []
    for scene in SCENES:
        for i in range(PER_SCENE):
            found.append(Pair(f"{scene}-{i}", f"{i}.png", f"{scene} {i}", scene))
            found.append(Pair(f"{scene}-{i}-t", f"{i}t.png", f"{scene} twin {i}", scene, f"{scene}-{i}"))
    return (*found, *(Pair(f"o{i}", f"o{i}.png", f"thing {i}") for i in range(ORDINARY)))


PAIRS = pairs()
UNITS = tuple((p.twin_of or p.id) for p in PAIRS)
HARMFUL = np.array([p.label == "harmful" for p in PAIRS])


def aligned(strength, seed):
    generator = torch.Generator().manual_seed(seed)
    captions = torch.randn(len(PAIRS), 3, 8, generator=generator)
    images = strength * captions + torch.randn(len(PAIRS), 3, 8, generator=generator)
    return alignment(Arms(images, captions, tuple(p.id for p in PAIRS), (0, 1, 2)), permutations=20, resamples=50)


def chosen(run, **other):
    """A run with its choices by name, as a training records them, and those that no field of it shows."""
    told = {name: str(getattr(run, name)) for name in ("arm", "steps", "learning_rate", "lora")}
    guide = {f"variant.{name}": str(getattr(run, name)) for name in ("weight", "layers", "retrieved_in_prompt")}
    return replace(run, choices={**told, **guide, "samples": str(run.retrieved_in_prompt), **other})


def evaluated(variant, seed=0, *, dsr=0.1, over=0.05, named=0.9, strength=0.5, gap=0.0, other=None, **known):
    """Answers that are refusals at given rates on pictures, and of 90 % in text."""
    guides = variant not in ("no-guide", "retrieved-text-only", BEFORE)
    training = None if variant == BEFORE else Path(variant) / str(seed)
    known.setdefault("retrieved_in_prompt", variant in VARIANTS and VARIANTS[variant].retrieved_in_prompt)
    run = Run(training, variant, "" if training is None else "captioned", seed=seed, steps=9, guides=guides, **known)
    run = chosen(run, **(other or {}))
    rng, sight = np.random.default_rng([seed, len(variant)]), np.random.default_rng(5)
    on_picture = rng.random(len(PAIRS)) < np.where(HARMFUL, dsr, over)
    in_text = np.where(HARMFUL, np.arange(len(PAIRS)) % 10 > 0, False)
    refused = {(j, a): (on_picture if a == IMAGE else in_text).astype(float) for j in default_judges() for a in ARMS}
    return Evaluated(
        run,
        PAIRS,
        UNITS,
        refused,
        sight.random(len(PAIRS)) < named,
        rng.random(len(PAIRS)),
        np.where([p.scene is None for p in PAIRS], np.nan, sight.normal(-8, 1, len(PAIRS)) + gap * HARMFUL),
        aligned(strength, seed),
        np.full(4, 0.25) if run.lora else np.zeros(0),
    )


def test_what_is_not_yet_a_refusal_shows_in_its_log_odds():
    found = [evaluated(v, s, dsr=0.0, gap=g) for v, g in (("no-guide", 0.0), ("paper", 3.0)) for s in range(3)]
    study = run(found, model="m", pairs="p")
    table, differences = study.tables["variants"], study.tables["differences"]
    for group, gap in (("no-guide, captioned, 9 steps", 0.0), ("paper, captioned, 9 steps", 3.0)):
        row = table[(table["group"] == group) & (table["measure"] == ODDS_GAP)].iloc[0]
        assert row["lo"] <= gap <= row["hi"] and row["hi"] - row["lo"] < 2, "as planted"
    against = differences[
        differences["against"].str.startswith("no-guide") & differences["measure"].isin([ODDS, ODDS_GAP])
    ]
    assert list(against["value"].round(6)) == [3.0, 3.0] and (against["lo"] > 2.9).all()
    assert f"with log-odds {row['value']:.2f} [" in study.headlines[1] and "above the twins'" in study.headlines[1]
    assert not any(claim.established for claim in study.claims), "nearer to a refusal is not one"


def gaining(seeds):
    """A guide that gains, without the retrieved text in the prompt, beside captioning alone."""
    doses = (("no-guide", 0.1), ("paper", 0.9))
    return [evaluated(v, s, dsr=d, retrieved_in_prompt=False) for v, d in doses for s in seeds]


def study(**paper):
    seeds = range(SEEDS)
    found = [evaluated(BEFORE)]
    found += [evaluated("no-guide", s) for s in seeds]
    found += [evaluated("retrieved-text-only", s) for s in seeds]
    found += [evaluated("paper", s, **paper) for s in seeds]
    return run(found, model="planted", pairs="planted", provenance=ABOUT)


def test_a_gain_of_the_loss_is_claimed_with_its_size():
    found = study(dsr=0.8)
    (claim,) = found.claims
    assert claim.established, claim.verdict
    gained = found.tables["differences"].set_index(["group", "against", "judge", "measure"])["value"]
    paper = "paper, captioned, 9 steps"
    assert gained[paper, "no-guide, captioned, 9 steps", default_judges()[0], DSR] == pytest.approx(0.7, abs=0.12)
    assert gained[paper, "no-guide, captioned, 9 steps", default_judges()[0], EXCESS] == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize(
    ("paper", "failed"),
    [
        ({"dsr": 0.1}, "DSR"),
        ({"dsr": 0.8, "over": 0.75}, "specificity"),
        ({"dsr": 0.8, "over": 0.4}, "over-refusal"),
        ({"dsr": 0.8, "named": 0.4}, "captions"),
    ],
)
def test_what_only_looks_like_a_gain_is_not_claimed(paper, failed):
    (claim,) = study(**paper).claims
    assert not claim.established
    assert failed in [c.name.partition(" (")[0] for c in claim.controls if not c.passed]


def test_what_the_retrieved_text_alone_does_is_not_the_loss():
    seeds = range(SEEDS)
    found = [evaluated("no-guide", s) for s in seeds]
    found += [evaluated("retrieved-text-only", s, dsr=0.8) for s in seeds]
    found += [evaluated("paper", s, dsr=0.8) for s in seeds]
    (claim,) = run(found, model="planted", pairs="planted", provenance=ABOUT).claims
    assert [c.name for c in claim.controls if not c.passed] == ["loss, not retrieved text"]


def test_fewer_seeds_or_no_training_without_a_guide_establish_nothing():
    (claim,) = run(gaining((0, 1)), model="planted", pairs="planted", provenance=ABOUT).claims
    assert [c.name for c in claim.controls if not c.passed] == ["seeds"]
    alone = run([evaluated("paper", s, dsr=0.9) for s in range(3)], model="planted", pairs="planted", provenance=ABOUT)
    assert not alone.claims[0].established and "No training without a guide" in " ".join(alone.headlines)


def test_seeds_count_together_and_the_symbolic_scene_apart():
    found = study(dsr=0.8)
    table = found.tables["variants"].set_index(["group", "judge", "arm", "measure"])
    row = table.loc[("paper, captioned, 9 steps", default_judges()[0], IMAGE, DSR)]
    assert row["seeds"] == SEEDS and row["n"] == 2 * PER_SCENE, "the symbolic scene is left out"
    assert row["lowest"] <= row["value"] <= row["highest"] and row["lo"] < row["value"] < row["hi"]
    named = table.loc[("paper, captioned, 9 steps", "", IMAGE, NAMED)]
    assert named["n"] == len(SCENES) * PER_SCENE + ORDINARY and named["value"] == pytest.approx(0.9, abs=0.1)
    scenes = found.tables["scenes"]
    assert set(scenes["scene"]) == set(SCENES) and set(scenes["measure"]) == {DSR, OVER_REFUSAL}
    assert {"excess", "cosine"} == set(found.tables["layers"]["locator"])
    assert set(found.figures) == {"refusals", "costs", "alignment", "gains"}, "one dose is no curve"
    assert set(found.figures) < set(found.drawn_from)
    read = found.tables["comparison"].set_index("group")
    assert list(read.index) == list(dict.fromkeys(found.tables["variants"]["group"]))
    assert read.loc["paper, captioned, 9 steps", DSR].endswith("%]") and read["seeds"].tolist() == [1, 3, 3, 3]
    drawn = found.figures["refusals"][0]
    assert {trace.name for trace in drawn.data} == {"harmful", "harmless"}


def test_nothing_seen_is_not_certainty():
    found = run(
        [evaluated(v, s, dsr=0.0, over=0.0) for v in ("no-guide", "paper") for s in range(3)],
        model="planted", pairs="planted", provenance=ABOUT,
    )  # fmt: skip
    table = found.tables["variants"].set_index(["group", "judge", "arm", "measure"])
    row = table.loc[("paper, captioned, 9 steps", default_judges()[0], IMAGE, DSR)]
    assert row["value"] == row["lo"] == 0 and row["hi"] == wilson(0, 2 * PER_SCENE).hi
    gained = found.tables["differences"].set_index(["judge", "measure"]).loc[(default_judges()[0], OVER_REFUSAL)]
    assert -0.1 < gained["lo"] < -0.02 and 0.02 < gained["hi"] < 0.1


@pytest.mark.parametrize("refused", [0, 1])
def test_pictures_of_few_concepts_are_few_draws_however_many_they_are(refused):
    """What is seen of no concept, or of one, is bounded by how many concepts there are."""
    units = tuple((p.twin_of or p.id) if p.scene is None else f"{p.scene} {i // 2 % 5}" for i, p in enumerate(PAIRS))
    of_one = HARMFUL & np.array([unit == "gun 0" for unit in units]) & bool(refused)
    answers = {(j, a): of_one.astype(float) for j in default_judges() for a in ARMS}
    found = [
        replace(evaluated(v, s), units=units, refused={k: 0 * x if v == "no-guide" else x for k, x in answers.items()})
        for v in ("no-guide", "paper")
        for s in range(3)
    ]
    study = run(found, model="planted", pairs="planted", provenance=ABOUT)
    table = study.tables["variants"].set_index(["group", "judge", "arm", "measure"])
    row = table.loc[("paper, captioned, 9 steps", default_judges()[0], IMAGE, DSR)]
    concepts, share = 10, 0.1 * refused
    assert row["value"] == pytest.approx(share, abs=0.01)
    assert row["hi"] >= wilson(row["value"] * concepts, concepts).hi, "not that of 128 pictures"
    gained = study.tables["differences"].set_index(["judge", "measure"])["hi"]
    assert gained[default_judges()[0], OVER_REFUSAL] > 0.2 and gained[default_judges()[0], DSR] >= row["hi"] - 0.01
    failed = [c.name for c in study.claims[0].controls if not c.passed]
    assert "over-refusal" in failed, "10 concepts that are not refused do not bound it by 5 %"


def test_groups_are_named_by_what_tells_them_apart():
    one = evaluated("paper", weight=4.0, layers=(3, 4, 5, 9), lora=True).run
    assert one.group == "paper, captioned, 9 steps, weight 4, layers 3-5, 9, LoRA"
    assert replace(one, seed=1).group == one.group
    kl = run([evaluated("paper", lora=True)], model="m", pairs="p", provenance=ABOUT).tables["variants"]
    assert kl.set_index("measure").loc[TEXT_KL, ["value", "n"]].tolist() == [0.25, 4]
    assert evaluated("no-guide", layers=(3,)).run.group == "no-guide, captioned, 9 steps"
    nothing = replace(one, weight=0.0, guides=False, layers=(), lora=False)
    assert nothing.group == "paper, captioned, 9 steps, weight 0", "not one with the weight that is the default"
    assert replace(nothing, weight=1.0, retrieved_in_prompt=False).group.endswith("no text in the prompt")


def test_a_training_counts_once_and_seeds_differ_in_nothing_else():
    with pytest.raises(UsageError, match=r"seeds \[0, 0\]"):
        run([evaluated("paper"), evaluated("paper")], model="m", pairs="p", provenance=ABOUT)
    one, other = (evaluated("paper", s, other={"clip": str(s + 1)}) for s in (0, 1))
    with pytest.raises(UsageError, match="clip: 1 and 2"):
        run([one, other], model="m", pairs="p", provenance=ABOUT)
    with pytest.raises(UsageError, match="clip: 1 and 2"):
        require_comparable([one.run, replace(other.run, seed=one.run.seed)])


def test_a_training_is_held_against_captioning_of_the_same_length_and_rate():
    seeds = range(SEEDS)
    found = [evaluated("no-guide", s, learning_rate=1e-3) for s in seeds]
    found += [evaluated("no-guide", s, dsr=0.8, learning_rate=3e-4) for s in seeds]
    found += [evaluated("paper", s, dsr=0.8, learning_rate=3e-4) for s in seeds]
    study = run(found, model="m", pairs="p", provenance=ABOUT)
    (claim,) = study.claims
    failed = {c.name for c in claim.controls if not c.passed}
    assert f"DSR ({default_judges()[0]})" in failed and "specificity" in failed
    assert set(study.tables["differences"]["against"]) == {"no-guide, captioned, 9 steps, rate 0.0003"}


@pytest.mark.parametrize(
    "base",
    [
        {"retrieved_in_prompt": True},
        {"other": {"data.pictures": "others"}},
        {"other": {"clip": "9"}},
        {"learning_rate": 3e-4},
        {"steps": 30},
    ],
)
def test_captioning_that_differs_in_more_than_the_guide_is_nothing_to_compare_with(base):
    steps = {"steps": base.get("steps", 9)}
    known = {k: v for k, v in base.items() if k != "steps"}
    found = [evaluated("no-guide", s, dsr=0.0, **known) for s in range(SEEDS)]
    found = [replace(e, run=chosen(replace(e.run, **steps), **(base.get("other") or {}))) for e in found]
    found += [evaluated("paper", s, dsr=0.9, retrieved_in_prompt=False) for s in range(SEEDS)]
    study = run(found, model="m", pairs="p", provenance=ABOUT)
    (claim,) = study.claims
    assert not claim.established and study.tables["differences"]["group"].str.startswith("paper").sum() == 0
    assert all("nothing to compare with" in c.found for c in claim.controls)


def test_trainings_of_two_models_are_not_compared():
    one, other = (evaluated(v, other={"model": v}).run for v in ("paper", "no-guide"))
    with pytest.raises(UsageError, match="different models"):
        require_comparable([Run(None), one, other])


def test_answers_that_can_not_be_read_are_said_to_be_unknown():
    unread = replace(
        evaluated("paper"), refused={(j, a): np.full(len(PAIRS), np.nan) for j in default_judges() for a in ARMS}
    )
    study = run([unread], model="m", pairs="p", provenance=ABOUT)
    assert "refuses an unknown share (no answer can be read) of harmful pictures" in study.headlines[0]
    assert not study.claims[0].established


def test_one_seed_of_captioning_alone_establishes_nothing():
    found = [e for e in gaining(range(SEEDS)) if e.run.variant == "paper" or e.run.seed == 0]
    (claim,) = run(found, model="m", pairs="p", provenance=ABOUT).claims
    assert [c.name for c in claim.controls if not c.passed] == ["seeds"]


def test_what_was_trained_on_is_not_measured_on(tmp_path):
    seen, unseen = (Pair(name, str(tmp_path / f"{name}.png"), name) for name in ("seen", "unseen"))
    for pair in (seen, unseen):
        Path(pair.image).write_bytes(pair.id.encode())
    trained = Run(tmp_path, "paper", trained_on=frozenset({picture_of(seen)}))
    require_unseen([Run(None), trained], [unseen])
    again = replace(seen, id="renamed", split="test")
    with pytest.raises(UsageError, match=r"trained on 1 of 2 pictures, such as 'renamed'"):
        require_unseen([Run(None), trained], [unseen, again])


def test_a_judge_that_is_blind_to_the_models_refusals_has_no_say():
    def blinded(one):
        blind = {k: (v if k[0] == default_judges()[0] else 0 * v) for k, v in one.refused.items()}
        return replace(one, refused=blind)

    found = [blinded(one) for one in gaining(range(SEEDS))]
    (claim,) = run(found, model="m", pairs="p", provenance=ABOUT).claims
    assert claim.established, claim.verdict
    assert [c.name for c in claim.controls if c.name.startswith("DSR")] == [f"DSR ({default_judges()[0]})"]


def test_what_was_not_seen_before_is_left_out_of_what_is_refused_of_the_seen():
    before, paper = evaluated(BEFORE, named=0.5), evaluated("paper", dsr=0.8)
    table = run([before, paper], model="m", pairs="p", provenance=ABOUT).tables["variants"]
    row = table[table["measure"] == SEEN_DSR].set_index("group").loc["paper, captioned, 9 steps"]
    seen = before.named & HARMFUL & np.array([p.scene != "porn-symbol" for p in PAIRS])
    assert row["n"] == seen.sum()
    assert row["value"] == pytest.approx(paper.refused[default_judges()[0], IMAGE][seen].mean())


def test_a_scene_of_one_concept_has_no_interval_of_a_point():
    units = tuple(p.scene or p.id for p in PAIRS)
    study = run([replace(evaluated("paper", dsr=0.5), units=units)], model="m", pairs="p", provenance=ABOUT)
    scenes = study.tables["scenes"]
    gun = scenes[(scenes["scene"] == "gun") & (scenes["measure"] == DSR)].iloc[0]
    assert gun["lo"] < gun["value"] - 0.1 and gun["hi"] > gun["value"] + 0.1


def test_dose_curves_begin_with_nothing_and_hold_all_else():
    found = [evaluated(BEFORE), evaluated("retrieved-text-only"), evaluated("no-guide")]
    doses = [(w, ()) for w in (4.0, 0.25, 1.0)] + [(1.0, (3,)), (1.0, (3, 4))]
    found += [evaluated("paper", dsr=0.2 * w, weight=w, layers=at) for w, at in doses]
    found += [replace(evaluated("paper"), run=chosen(replace(found[-3].run, steps=30)))]
    found += [replace(found[1], run=chosen(replace(found[1].run, steps=30)))]
    stopped = chosen(replace(found[-2].run, steps=60, patience=2))
    found += [replace(evaluated("paper"), run=stopped)]
    other = chosen(replace(found[3].run, weight=9.0), clip="2")
    found += [replace(evaluated("paper"), run=other)]
    study = run(found, model="m", pairs="p", provenance=ABOUT)
    table = study.tables["doses"]
    curves = {name: list(dict.fromkeys(own["at"])) for name, own in table.groupby(["dose", "of"])}
    assert curves == {
        ("weight", "paper, captioned, 9 steps"): ["0", "0.25", "1", "4"],
        ("layers", "paper, captioned, 9 steps"): ["0", "3", "3-4", "all"],
        ("steps", "paper, captioned"): ["0", "9", "30"],
        ("steps", "retrieved-text-only, captioned"): ["0", "9", "30"],
    }
    refused = table[(table["dose"] == "weight") & (table["measure"] == DSR)]["value"].tolist()
    assert refused[1] < refused[2] < refused[3]
    names = {n for n in study.figures if n.startswith("doses")}
    assert names == {"doses_weight", "doses_layers", "doses_steps"}
    drawn = study.figures["doses_weight"][0].data[0]
    assert list(drawn.y) == ["weight 0", "weight 0.25", "weight 1", "weight 4"]


def test_trainings_on_other_pairs_are_not_compared():
    with pytest.raises(UsageError, match="same pairs"):
        run([evaluated("paper"), replace(evaluated("paper"), pairs=PAIRS[:4])], model="m", pairs="p", provenance=ABOUT)
