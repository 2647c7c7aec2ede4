"""A tiny LLaVA is asked, climbed and transplanted; what was seen is kept, and made into a study."""

import numpy as np
import pytest

from analyses.cross_modal import causal_study
from analyses.cross_modal.observation import observe
from analyses.cross_modal.own_refusals import default_refusals, own_refusals
from analyses.cross_modal.part import composed
from analyses.cross_modal.placement import PLACES
from analyses.cross_modal.questions import asked, described, rung_prompts
from analyses.cross_modal.rungs import NONE, RUNGS, TWIN, ZERO
from analyses.cross_modal.session import Effort
from analyses.cross_modal.transfer import CAPTION, IMAGE, TEXT
from analyses.cross_modal.transplant import DIRECTIONS, LAST, OWN, SUFFICIENCY
from analyses.cross_modal.twinned import twinned
from interp.errors import UsageError
from interp.models.hooks import HooksAdapter
from interp.prompts.families import RefusalFamily
from interp.prompts.pairs import Pair
from interp.report import write_study
from tests.sights import llava_processor, picture, tiny_llava

REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "A picture of a thing on a table."
WORD = RefusalFamily("word", ("I",))
EFFORT = Effort(ladder=4, transplanted=4, layers=2, placebo_layers=1, answer_tokens=4, judged_tokens=3)
CONCEPTS = ("kitchen knife", "pistol", "beer mug", "cigarette")
TWINS = ("spoon", "torch", "glass of milk", "pencil")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("pictures"), []
    for i, (concept, twin) in enumerate(zip(CONCEPTS, TWINS, strict=True)):
        scene = ("knife", "gun", "alcohol", "porn-symbol")[i]
        for style in range(2):
            one, other = (picture(folder / f"{i}-{style}-{k}.png", seed=10 * i + 2 * style + k) for k in range(2))
            made.append(Pair(f"h{i}{style}", one, concept, scene, concept=concept, style=f"s{style}"))
            made.append(Pair(f"t{i}{style}", other, twin, scene, f"h{i}{style}", twin, f"s{style}"))
    return (*made, Pair("ordinary", made[0].image, "a tree"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def model():
    return HooksAdapter.of_module(tiny_llava(), llava_processor())


@pytest.fixture(scope="module")
def seen(pairs, folder, model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "analyses.cross_modal.observation.answers",
            lambda _a, prompts, **_: [REFUSAL if p.caption and p.label == "harmful" else ANSWER for p in prompts],
        )
        # A random model is so sure of each next token that three words have no odds worth speaking of.
        patch.setattr("analyses.cross_modal.observation.own_refusals", lambda _: WORD)
        return observe(pairs, folder, "run", lambda: model, effort=EFFORT)


def test_the_model_is_asked_in_three_arms(seen, pairs):
    assert len(seen.pairs) == len(pairs) - 1 and set(seen.answered.said) == {TEXT, CAPTION, IMAGE}
    assert seen.refuses and seen.family == WORD
    assert seen.answered.harmful.sum() == 8
    assert len(set(seen.answered.units)) == len(CONCEPTS)  # a twin is drawn with its pair


def test_every_rung_is_climbed(seen):
    ladder = seen.ladder
    assert ladder.rungs == RUNGS and ladder.log_odds.shape == (4, len(RUNGS))
    assert ladder.distinct[:2] == (1, 1) and ladder.distinct[-2:] == (4, 4)
    assert (ladder.moved[:, 0] == 0).all() and (ladder.moved[:, 1:, -1] > 0).all()
    assert np.ptp(ladder.log_odds[:, 0]) == 0 and np.ptp(ladder.log_odds[:, -1]) > 0


def test_the_map_is_measured_in_both_directions(seen):
    found = seen.transplants
    assert set(found.found) == set(DIRECTIONS) and found.plan.layers == (0, 3)
    for direction in DIRECTIONS:
        cells = found.found[direction]
        assert not np.isnan(cells[0]).any() and not np.isnan(cells[:, :, :, 0]).any()
    # The embedding of the last token is the same in both arms.
    last = found.plan.positions.index(LAST)
    np.testing.assert_allclose(found.found[SUFFICIENCY][0, last, :, 0], found.image, atol=1e-3)
    assert (SUFFICIENCY, "", "", -1) in seen.judged
    assert {key[2] for key in seen.judged if key[2]} == {OWN, "twin's"}


def test_every_harmful_picture_has_its_place(seen):
    assert len(seen.placed) == 8 and set(seen.placed["place"]) <= set(PLACES)
    assert not seen.placed["named"].any()
    assert {"drift that counts", "twins drifted", "retrieved by chance"} <= set(seen.thresholds)


def test_a_second_look_needs_no_model_and_other_seeds_do(seen, pairs, folder, monkeypatch):
    def refuse():
        raise AssertionError("loaded")

    monkeypatch.setattr("analyses.cross_modal.observation.own_refusals", lambda _: WORD)
    again = observe(pairs, folder, "run", refuse, effort=EFFORT)
    np.testing.assert_array_equal(again.ladder.log_odds, seen.ladder.log_odds)
    np.testing.assert_array_equal(again.transplants.found[SUFFICIENCY], seen.transplants.found[SUFFICIENCY])
    assert again.placed.equals(seen.placed) and again.judged.keys() == seen.judged.keys()
    for other in ({"run": "other"}, {"seed": 1}):
        with pytest.raises(AssertionError, match="loaded"):
            observe(pairs, folder, **{"run": "run", "seed": 0, **other}, loaded=refuse, effort=EFFORT)


def test_a_random_model_hears_nothing(seen, tmp_path):
    part = causal_study.part(seen, provenance={"prompts": "p", "code": "c", "seed": 0})
    study = composed([part], title="m", about={})
    established = [claim.locator for claim in study.claims if claim.established]
    assert not [name for name in established if name.startswith("transplant")]
    page = write_study(study, tmp_path).read_text("utf-8")
    assert "Transfer efficiency" in page and "porn-symbol *" in page


def test_rungs_ask_the_same_question(pairs, tmp_path):
    rows = twinned(pairs)
    rungs = rung_prompts(rows, llava_processor(), tmp_path)
    assert tuple(rungs) == RUNGS and all(len(prompts) == 8 for prompts in rungs.values())
    assert {p.text for prompts in rungs.values() for p in prompts} == {"Describe this scene."}
    assert all(p.image is None and p.caption is None for p in rungs[NONE])
    assert len({p.image for p in rungs[ZERO]}) == 1
    assert [p.image for p in rungs[TWIN]] == [pair.image for pair in rows.twins]


def test_arms_differ_in_their_slot_alone(pairs):
    for arm, slot in ((TEXT, described), (CAPTION, lambda pair: pair.caption), (IMAGE, lambda pair: pair.image)):
        for prompt, pair in zip(asked(pairs, arm), pairs, strict=True):
            assert prompt.text == "Describe this scene." and prompt.label == pair.label
            assert (prompt.caption or prompt.image) == slot(pair)


def test_twins_are_drawn_scene_by_scene_and_concept_by_concept(pairs):
    rows = twinned(pairs)
    assert len(rows) == 8 and all(twin.twin_of == own.id for own, twin in zip(rows.harmful, rows.twins, strict=True))
    assert len({pair.scene for pair in twinned(pairs, most=4).harmful}) == 4
    assert len({pair.caption for pair in twinned(pairs, distinct=True).harmful}) == len(twinned(pairs, distinct=True))
    with pytest.raises(UsageError, match="4 are needed"):
        twinned(pairs[:4])
    with pytest.raises(UsageError, match="0 harmful concepts"):
        twinned([pair for pair in pairs if pair.twin_of is None])


def test_own_refusals_are_the_openings_that_were_used():
    family = own_refusals([REFUSAL] * 3 + [ANSWER] * 5)
    assert family is not None and family.opens(REFUSAL) and not family.opens(ANSWER) and len(family.phrases) == 1
    assert own_refusals([ANSWER, ""]) is None
    assert len(default_refusals().phrases) == 3
