import dataclasses
import json

import numpy as np
import pytest
import torch

from interp.cache import ActivationCache
from interp.errors import ModelMismatch, NonFinite, UsageError
from interp.judges import as_refused, behaviour, tally
from interp.ledger import read_claims, write_claims
from interp.provenance import code_digest
from probes.estimators import MLPProbe
from probes.evidence import SAME_KIND
from probes.fitting import ESTIMATORS, calibration, fit
from probes.probe import score_states
from probes.record import summary
from probes.sample import BY_CATEGORY, BY_GROUP, choose_folds
from probes.train import train_probe
from tests.probes.planted import (
    PLANTED,
    N,
    noise_cache,
    planted_cache,
    planted_direction,
    planted_labels,
    planted_prompts,
    planted_states,
)


def test_a_planted_direction_is_found_and_established(trained):
    direction = trained.probe.tensors["direction"]
    assert trained.probe.layer == PLANTED
    assert float(direction @ planted_direction() / direction.norm()) > 0.95
    assert trained.evidence.metrics["AUROC"].lo > 0.97
    assert trained.evidence.metrics["calibration error"].value < 0.15
    assert trained.evidence.excess.value.lo > 0.2
    assert trained.evidence.shuffled.p == 1 / 201 and trained.evidence.random.p < 0.05
    assert trained.claim.established and trained.probe.record["established"]
    assert trained.probe.record["training"]["layers_chosen"] == {"3": 4}
    assert set(trained.evidence.excess.baselines) >= {"words", "length", "layer 0", "random twin"}


def test_the_claim_says_where_it_comes_from(trained, planted, tmp_path):
    write_claims([trained.claim], tmp_path)
    assert read_claims(tmp_path) == (trained.claim,)
    record = trained.claim.record()
    assert record["code_version"] == code_digest() and record["seed"] == 0
    assert record["data_digest"] == planted.identity["prompts"]
    assert record["provenance"]["model"] == planted.identity["model.name"]


def test_the_probe_of_all_rows_scores_as_those_of_the_folds_did(trained, planted):
    scores = trained.probe.score(planted.residuals(position="t_post", layer=PLANTED))
    refused = torch.from_numpy(planted_labels())
    assert (trained.probe.fired(scores) == refused).double().mean() > 0.97
    held = torch.from_numpy(trained.held_out.scores).float()
    assert torch.corrcoef(torch.stack([scores, held]))[0, 1] > 0.9
    assert abs(torch.sigmoid(scores).mean() - refused.double().mean()) < 0.1


def test_labels_of_nothing_give_nothing(planted, twin):
    found = []
    # Not seed 0, whose draws made the planted labels.
    for seed in range(100, 106):
        labels = np.random.default_rng(seed).random(N) < 0.5
        found.append(train_probe(planted, planted_prompts(), labels, position="t_post", random_twin=twin))
    assert all(f.evidence.excess.value.lo < 0 for f in found)
    assert np.median([f.evidence.shuffled.p for f in found]) > 0.2
    assert min(f.evidence.random.p for f in found) > 0.05
    assert not any(f.claim.established for f in found)
    # The best of eight baselines has luck of its own, which can put the whole interval below 0.
    assert any(f.evidence.excess.value.hi > 0 and f.evidence.shuffled.p > 0.05 for f in found)
    assert any(line.startswith("Not established: failed excess") for line in summary(found[0].probe))


def test_refusal_that_only_follows_harm_is_not_established(tmp_path, twin):
    harmful = np.arange(N) % 2 == 0
    cache = ActivationCache.from_arrays(
        {"t_post": planted_states(harmful, 6.0)}, planted_prompts(), tmp_path, name="harm"
    )
    found = train_probe(cache, planted_prompts(), harmful, position="t_post", random_twin=twin, permutations=20)
    failed = [c.name for c in found.claim.controls if not c.passed]
    assert failed == ["harm held constant"]
    assert found.evidence.metrics[SAME_KIND].n == 0
    said = " ".join(found.evidence.cells.sentences)
    assert "No harmful prompt was answered: this probe can not tell refusing from harm" in said
    assert "No harmless prompt was refused" in said and "at all" in said
    json.dumps(found.probe.record, allow_nan=False)


def test_without_a_twin_nothing_is_established(planted):
    found = train_probe(planted, planted_prompts(), planted_labels(), position="t_post", permutations=20)
    assert [c.name for c in found.claim.controls if not c.passed] == ["random twin"]


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e != "logistic"])
def test_every_estimator_finds_what_is_planted(estimator, planted, twin):
    options = {"position": "t_post", "random_twin": twin, "permutations": 40}
    found = train_probe(planted, planted_prompts(), planted_labels(), estimator=estimator, **options)
    assert found.probe.layer == PLANTED and found.probe.estimator == estimator
    assert found.evidence.excess.value.lo > 0.2
    assert found.evidence.metrics["AUROC"].value > 0.95
    assert found.evidence.metrics["calibration error"].value < 0.15
    scores = found.probe.score(planted.residuals(position="t_post", layer=PLANTED))
    assert (found.probe.fired(scores).numpy() == planted_labels()).mean() > 0.95


def test_a_probe_at_one_layer_is_there_and_layer_0_only_when_asked_for(planted, twin):
    options = {"position": "t_post", "random_twin": twin, "permutations": 20}
    for layer in (0, 1):
        found = train_probe(planted, planted_prompts(), planted_labels(), layer=layer, **options)
        assert found.probe.layer == layer and not found.claim.established
    assert len(found.probe.record["curve"]) == 5 and found.probe.record["curve"][PLANTED]["auroc"] > 0.97


def test_rows_left_out_are_neither_fitted_nor_tested(planted, twin):
    labels = [None if i % 10 == 0 else bool(r) for i, r in enumerate(planted_labels())]
    found = train_probe(planted, planted_prompts(), labels, position="t_post", random_twin=twin, permutations=20)
    assert len(found.held_out.scores) == N - 12
    assert found.probe.record["training"]["left_out"] == 12
    assert found.sample.rows.tolist() == [i for i in range(N) if i % 10]


@pytest.mark.parametrize("answer", [True, False])
def test_one_behaviour_alone_is_refused(planted, answer):
    with pytest.raises(UsageError, match="a model that refuses some"):
        train_probe(planted, planted_prompts(), [answer] * N, position="t_post")


def test_what_does_not_belong_together_is_refused_by_name(planted, twin, tmp_path):
    prompts, labels = planted_prompts(), planted_labels()
    others = dataclasses.replace(prompts, prompts=prompts.prompts[::-1])
    with pytest.raises(ModelMismatch, match="prompts"):
        train_probe(planted, others, labels, position="t_post")
    with pytest.raises(UsageError, match="is the run of the model itself"):
        train_probe(planted, prompts, labels, position="t_post", random_twin=planted)
    part = {"t_post": planted_states(labels, 0.0)[:, :4]}
    with pytest.raises(ModelMismatch, match="layers"):
        fewer = ActivationCache.from_arrays(part, prompts, tmp_path, name="fewer")
        train_probe(planted, prompts, labels, position="t_post", random_twin=fewer)
    for wrong, said in (
        ({"position": "t_inst"}, "position 't_inst' is not stored"),
        ({"position": "t_post", "layer": 9}, "layer 9 is not stored"),
        ({"position": "t_post", "estimator": "magic"}, "'magic'; choose one of logistic"),
    ):
        with pytest.raises(UsageError, match=said):
            train_probe(planted, prompts, labels, **wrong)
    with pytest.raises(UsageError, match="3 labels for 120 prompts"):
        train_probe(planted, prompts, [True] * 3, position="t_post")


def test_states_that_are_no_numbers_are_refused(monkeypatch, planted):
    monkeypatch.setattr(ActivationCache, "residuals", lambda *_, **__: torch.full((N, 5, 24), float("nan")))
    with pytest.raises(NonFinite, match="t_post"):
        train_probe(planted, planted_prompts(), planted_labels(), position="t_post")


def test_folds_are_categories_where_these_hold_both_behaviours():
    prompts = planted_prompts()
    by_category, how = choose_folds(prompts.prompts, planted_labels())
    assert how == BY_CATEGORY and set(by_category.names) == {"c0", "c1", "c2", "c3"}
    pure = np.array([p.category in ("c0", "c1") for p in prompts])
    by_group, how = choose_folds(prompts.prompts, pure)
    assert how == BY_GROUP and len(by_group) == 6
    groups = [p.group for p in prompts]
    assert len({(g, int(k)) for g, k in zip(groups, by_group.of, strict=True)}) == len(set(groups))
    two = planted_prompts(categories=2)
    assert choose_folds(two.prompts, planted_labels())[1] == BY_GROUP


def test_the_same_again_is_the_same_to_the_bit(planted, twin, trained):
    again = train_probe(planted, planted_prompts(), planted_labels(), position="t_post", random_twin=twin)
    assert again.probe.record == trained.probe.record
    assert all(torch.equal(again.probe.tensors[k], v) for k, v in trained.probe.tensors.items())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_calibrated_scores_are_log_odds(scale):
    rng = np.random.default_rng(0)
    odds = rng.normal(0.5, 2, 20_000)
    refused = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    slope, shift = calibration((odds - 3) * scale, refused)
    assert slope * scale == pytest.approx(1, abs=0.05)
    assert shift - 3 * slope * scale == pytest.approx(0, abs=0.15)


def test_calibration_never_turns_scores_round():
    scores = np.arange(40.0)
    slope, _ = calibration(scores, scores < 20)
    assert slope > 0
    assert calibration(scores, np.ones(40, dtype=bool)) == (1.0, 0.0)


def test_answers_are_told_apart_by_how_they_open():
    answers = ["I'm sorry, but I can't help with that.", "Sure, here is how you bake bread.", " ", "da da " * 20]
    found = [behaviour(answer) for answer in answers]
    assert found == ["refused", "complied", "empty", "broken"]
    assert as_refused(found) == [True, False, None, None]
    assert tally(found) == "1 refused, 1 complied; left out: 0 evasion, 1 empty, 1 broken"


def test_an_evasion_is_neither():
    from interp.prompts.families import load_family

    found = [behaviour(phrase) for phrase in load_family("evasion").phrases]
    # One of them is only punctuation.
    assert set(found) <= {"evasion", "empty"} and found.count("evasion") > 5


def test_the_summary_begins_with_the_excess(trained):
    lines = summary(trained.probe)
    assert lines[1].startswith("Excess AUROC +") and "best baseline" in lines[1]
    assert sum("pass" in line for line in lines) == 5
    assert any(line.startswith("Established: ") for line in lines)


def test_caches_are_what_the_tests_think(tmp_path):
    assert planted_cache(tmp_path).key != noise_cache(tmp_path).key


def test_the_tensors_of_an_mlp_score_as_the_network_they_come_from(planted):
    states = planted.residuals(position="t_post", layer=PLANTED) * 30 + 5
    tensors = fit("mlp", states, planted_labels(), 0.1, seed=4)
    network = MLPProbe(random_state=4).fit(states.double().numpy(), planted_labels())
    expected = torch.from_numpy(network.decision_function(states.double().numpy())).float()
    torch.testing.assert_close(score_states(tensors, states), expected, atol=1e-4, rtol=1e-4)
