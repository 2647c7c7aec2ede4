from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.cross_modal.align import find, run
from analyses.cross_modal.align_claims import aligned_claim, less_aligned_claim, separation_claim
from analyses.cross_modal.arms import IMAGE, image_prompts
from analyses.cross_modal.part import Part, composed
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.ledger import read_claims
from interp.report import read_study, write_study
from interp.study import LAYERS_COLUMNS
from tests.analyses.cross_modal.planted_sides import CONCEPTS, LAYERS, SAFE, STYLES, WIDTH, pairs_in, sides


def encode(texts):
    """Descriptions and captions that name the same thing are nearly the same vector."""
    things = [int(text.split()[-1]) for text in texts]
    code = torch.from_numpy(np.random.default_rng(0).normal(size=(CONCEPTS, WIDTH))).float()
    return code[things] + 0.1 * torch.tensor([len(t) for t in texts])[:, None]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    def others(found):
        return [Part(sentences=(f"The ladder looks at layers {found.layers}.",))]

    return run(sides(tmp_path_factory.mktemp("planted")), encoder=("encoder", encode), others=others)


def at_t_post(planted, **options):
    """The claims of a study at t_post alone, without the figures."""
    found = find(planted, encoder=options.pop("encoder", ("encoder", encode)), **options)
    diagnosis, about = found.diagnoses["t_post"], {}
    made = [aligned_claim(diagnosis, provenance=about)]
    made += [less_aligned_claim(diagnosis, r, found.layers, provenance=about) for r in found.references["t_post"]]
    made.append(separation_claim(found.separation, "t_post", found.layers, provenance=about))
    return found, {c.family: c for c in made}


def failed(claim):
    return {c.name for c in claim.controls if not c.passed}


def claims(study, locator):
    return {(c.family, c.position): c for c in study.claims if c.locator == locator}


def curve(study, locator, family, group="all pairs", position="t_post"):
    rows = study.tables["layers"]
    chosen = rows[(rows["locator"] == locator) & (rows["family"] == family) & (rows["group"] == group)]
    return chosen[chosen["position"] == position].sort_values("layer")


def test_every_claim_that_is_true_here_is_established(study):
    assert all(c.established for c in study.claims), [c.verdict for c in study.claims if not c.established]
    assert set(claims(study, "alignment_excess")) == {("own caption", p) for p in ("slot", "t_inst", "t_post")}
    assert set(claims(study, "less_aligned")) == {
        (reference, p) for reference in ("encoder", "own description") for p in ("slot", "t_inst", "t_post")
    }
    assert set(claims(study, "separation")) == {("scene - harmless", p) for p in ("slot", "t_inst", "t_post")}


def test_the_raw_cosine_misleads_and_the_study_shows_it(study):
    raw, floor, excess = (
        curve(study, name, family)["value"].to_numpy()
        for name, family in (("cosine", "raw"), ("cosine of other concepts", "raw"), ("excess", "centred"))
    )
    assert (raw > 0.95).all() and (raw - floor < 0.05).all() and (excess > 0.4).all()
    said = next(line for line in study.headlines if line.startswith("At t_post the raw cosine"))
    assert "apart" in said and "p = 0.005" in said


def test_the_safety_layers_are_those_at_which_text_is_told_apart(study):
    claim = claims(study, "less_aligned")[("encoder", "t_post")]
    assert f"The ladder looks at layers {SAFE}." in study.headlines
    assert f"layers {SAFE[0]}-{SAFE[-1]}" in claim.statement and claim.n == CONCEPTS


def test_what_pictures_keep_of_the_direction_is_what_was_planted_and_no_modality_gap_hides_it(study):
    kept = {
        group: curve(study, "separation along refusal", "raw", group)["value"].to_numpy()[list(SAFE)]
        for group in ("captions", "pictures", "pictures - captions")
    }
    assert kept["captions"] == pytest.approx(1, abs=0.15) and kept["pictures"] == pytest.approx(0.2, abs=0.2)
    np.testing.assert_allclose(kept["pictures"] - kept["captions"], kept["pictures - captions"])
    drift = {
        group: curve(study, "drift along refusal", "raw", group)["value"].to_numpy()[list(SAFE)]
        for group in ("scenes", "harmless")
    }
    # All pictures are moved along it by their own mean, which the drift holds and the separation does not.
    assert np.abs(drift["harmless"]).max() > 1
    np.testing.assert_allclose(drift["scenes"] - drift["harmless"], -0.8, atol=0.25)


def test_pictures_that_hold_the_caption_states_attain_everything(tmp_path):
    planted = sides(tmp_path)
    rows = torch.arange(CONCEPTS).repeat_interleave(STYLES)
    states = {at: planted.caption.residuals(position=at.replace("image", "caption"))[rows] for at in IMAGE}
    same = ActivationCache.from_arrays(states, image_prompts(planted.pairs), tmp_path / "same", name="planted")
    found, made = at_t_post(replace(planted, image=same))
    for diagnosis in found.diagnoses.values():
        for one in diagnosis.alignments.values():
            np.testing.assert_allclose(one.attained.value, 1, atol=1e-6)
            np.testing.assert_allclose(one.excess.value, 1 - one.shuffled.value, atol=1e-6)
    assert made["own caption"].established
    assert failed(made["own description"]) >= {"less", "variants"} and "lost" in failed(made["scene - harmless"])


def test_shuffled_pairs_leave_nothing_and_no_claim(tmp_path):
    found, made = at_t_post(sides(tmp_path, image=0.0, scenes=(0.0, 1.0)))
    assert not made["own caption"].established and made["own caption"].verdict.startswith("Not established")
    excess = found.diagnoses["t_post"].main.excess
    assert ((excess.lo <= 0) & (excess.hi >= 0)).sum() >= len(LAYERS) - 1
    # Pictures that hold nothing of their captions are less aligned than the references, and that is what is said.
    assert made["encoder"].established and made["own description"].established


def test_without_anything_to_tell_texts_apart_there_are_no_safety_layers(tmp_path):
    planted = sides(tmp_path, scenes=(0.0, 0.0))
    found, made = at_t_post(planted)
    assert found.layers == () and all("layers" in failed(made[k]) for k in ("encoder", "scene - harmless"))
    diagnosis, (reference, _) = found.diagnoses["t_post"], found.references["t_post"]
    named = less_aligned_claim(diagnosis, reference, (2, 3), provenance={})
    assert named.established and "layers 2-3" in named.statement


def test_a_reference_that_is_at_chance_establishes_nothing(tmp_path):
    def babble(texts):
        return torch.from_numpy(np.random.default_rng(len(texts[0])).normal(size=(len(texts), WIDTH))).float()

    _, made = at_t_post(sides(tmp_path), encoder=("babble", babble))
    assert "reference" in failed(made["babble"])


def test_the_study_is_written_read_and_compared(study, tmp_path):
    write_study(study, tmp_path)
    assert {c.record()["verdict"] for c in read_claims(tmp_path)} == {c.verdict for c in study.claims}
    again = read_study(tmp_path)
    assert set(LAYERS_COLUMNS) <= set(again.tables["layers"].columns) and "floor" in again.tables["layers"]
    assert not again.tables["layers"].duplicated(["locator", "family", "position", "group", "layer"]).any()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "a picture of thing 3" in page
    heatmaps = {name for name in study.figures if "heatmap" in name}
    assert {"excess_heatmap", "cka_heatmap", "subspace_heatmap", "gap_heatmap", "retrieval_heatmap"} < heatmaps
    assert {"drift_heatmap", "separation_heatmap", "map_heatmap_slot"} < heatmaps
    assert set(study.drawn_from) == set(study.figures)


def test_parts_of_others_come_after_and_share_no_name():
    frame = pd.DataFrame({"x": [1]})
    one, other = Part(sentences=("First.",), tables={"a": frame}), Part(sentences=("Second.",), tables={"b": frame})
    study = composed([one, other], title="t", about={"seed": "0"})
    assert study.headlines == ("First.", "Second.") and set(study.tables) == {"a", "b"}
    with pytest.raises(ValueError, match="the name a"):
        composed([one, one], title="t", about={})


def test_arms_of_other_models_or_too_few_concepts_are_refused(tmp_path):
    planted = sides(tmp_path)
    with pytest.raises(UsageError, match="harvest the arms of one model"):
        replace(planted, caption=planted.image)
    few = pairs_in(tmp_path)[:6]
    few = pairs_in(tmp_path)[: 2 * STYLES]
    with pytest.raises(UsageError, match="2 concepts in 4 pairs"):
        sides(tmp_path, pairs=few)
