from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses import scan
from analyses.readings import kept_readings, read_cache
from analyses.scan_tables import OPENING
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.ledger import read_claims, write_claims
from interp.lens import Readout
from interp.models.lexicon import Lexicon
from interp.prompts import PromptSet, user_prompt
from interp.provenance import code_digest
from interp.study import LAYERS_COLUMNS

VOCAB, LAYERS, PAIRS = 24, 11, 30
SORRY, CAPITAL_I = 7, 11
READOUT = Readout(norm=torch.nn.Identity(), weight=torch.eye(VOCAB))
LEXICON = Lexicon("apology", (SORRY,), (SORRY, CAPITAL_I), (SORRY, CAPITAL_I), {SORRY: " sorry", CAPITAL_I: " I"})


def twins(pairs=PAIRS, labelled=True):
    label = ("harmful", "harmless") if labelled else (None, None)
    return PromptSet(
        "planted",
        tuple(
            user_prompt(f"{i}-{k}", f"prompt {i} {k}", label=label[k], group=str(i))
            for i in range(pairs)
            for k in (0, 1)
        ),
    )


def cache_of(tmp_path, *, layer=None, jump=8.0, on=(0,), seed=0, prompts=None):
    """States that are logits; "sorry" jumps at ``layer`` on the prompts of the kinds ``on`` (0 harmful, 1 harmless)."""
    prompts = prompts or twins()
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(prompts), 1, VOCAB, generator=generator).repeat(1, LAYERS, 1)
    states += 0.05 * torch.randn(len(prompts), LAYERS, VOCAB, generator=generator)
    states[..., [SORRY, CAPITAL_I]] = -2 - 0.3 * torch.arange(LAYERS)[:, None].float()
    if layer is not None:
        chosen = torch.tensor([i % 2 in on for i in range(len(prompts))])
        states[chosen, layer:, SORRY] += jump
    arrays = {"t_inst": states[:, :, :].clone(), "t_post": states}
    return ActivationCache.from_arrays(arrays, prompts, tmp_path, name="planted"), prompts


def test_readings_are_kept_and_read_again_when_words_or_states_change(tmp_path):
    cache, _ = cache_of(tmp_path, layer=5)
    expected, told = read_cache(cache, READOUT, LEXICON), []
    assert same_readings(kept_readings(cache, READOUT, LEXICON, expect=told.append), expected)
    assert len(told) == 1
    assert same_readings(kept_readings(cache, READOUT, LEXICON, expect=told.append), expected)
    assert len(told) == 1
    # The rules' words are not among what was kept, and still count.
    blind = replace(LEXICON, paper=())
    kept = kept_readings(cache, READOUT, blind, expect=told.append)
    assert len(told) == 1
    assert not kept.rules[0].fires.any()
    kept_readings(cache, READOUT, replace(LEXICON, openings=(SORRY,)), expect=told.append)
    assert len(told) == 2
    path = Path(cache.place) / "openings.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    kept_readings(cache, READOUT, replace(LEXICON, openings=(SORRY,)), expect=told.append)
    assert len(told) == 3


def same_readings(one, other):
    """Whether two readings agree to the bit."""
    return (
        list(one.openings) == list(other.openings)
        and all(np.array_equal(one.openings[p], other.openings[p]) for p in one.openings)
        and all(torch.equal(getattr(one.lens, f.name), getattr(other.lens, f.name)) for f in fields(one.lens))
        and all(np.array_equal(a.fires, b.fires) for a, b in zip(one.rules, other.rules, strict=True))
    )


@pytest.mark.parametrize("layer", [3, 6, 9])
def test_a_planted_refusal_is_established_at_its_layer(tmp_path, layer):
    cache, prompts = cache_of(tmp_path, layer=layer)
    study = scan.run(cache, READOUT, LEXICON, prompts)
    for claim in study.claims:
        assert claim.established, claim.verdict
        assert (claim.onset, claim.lo, claim.hi) == (layer, layer, layer)
    assert any(f"from layer {layer}" in line for line in study.headlines)


def test_every_claim_says_where_it_comes_from(tmp_path):
    cache, prompts = cache_of(tmp_path, layer=6)
    claims = scan.run(cache, READOUT, LEXICON, prompts, seed=3).claims
    write_claims(claims, tmp_path)
    assert read_claims(tmp_path) == claims
    origin = {"data_digest": prompts.digest, "code_version": code_digest(), "seed": 3, "family": "apology"}
    for claim in claims:
        assert origin.items() <= claim.record().items()
        assert claim.record()["interval"] == [6, 6]


def test_a_rule_that_fires_on_harmless_prompts_alike_is_not_established(tmp_path):
    cache, prompts = cache_of(tmp_path, layer=5, on=(0, 1))
    study = scan.run(cache, READOUT, LEXICON, prompts)
    claim = next(c for c in study.claims if c.locator == "tga_paper")
    failed = {c.name for c in claim.controls if not c.passed}
    assert not claim.established and "specificity" in failed and "fires" not in failed


def test_nulls_are_found_null(tmp_path):
    established = 0
    for seed in range(12):
        cache, prompts = cache_of(tmp_path / str(seed), seed=seed)
        study = scan.run(cache, READOUT, LEXICON, prompts, seed=seed)
        established += sum(c.established for c in study.claims)
    assert established == 0


def test_tables_hold_every_number_with_interval_and_n(tmp_path):
    cache, prompts = cache_of(tmp_path, layer=4)
    study = scan.run(cache, READOUT, LEXICON, prompts, position_tokens={"t_post": "\n"})
    layers = study.tables["layers"]
    assert tuple(layers.columns) == LAYERS_COLUMNS
    assert layers[["value", "lo", "hi", "n"]].notna().all().all()
    assert (layers["lo"] <= layers["value"] + 1e-9).all() and (layers["value"] <= layers["hi"] + 1e-9).all()
    signal = layers[(layers["locator"] == OPENING) & (layers["group"] == "harmful - harmless")]
    assert set(signal["position"]) == {"t_inst", "t_post"} and len(signal) == 2 * LAYERS
    assert (signal[signal["layer"] < 4]["value"].abs() < 0.5).all() and (
        signal[signal["layer"] >= 4]["value"] > 4
    ).all()
    assert len(study.tables["prompts"]) == len(prompts) * LAYERS
    onsets = study.tables["onsets"]
    paper = onsets[onsets["locator"] == "tga_paper"]
    assert (paper[paper["label"] == "harmful"]["onset"] == 4).all()
    assert paper[paper["label"] == "harmless"]["onset"].isna().all()
    assert paper[paper["label"] == "harmless"]["censored"].all()
    assert study.figures["position_heatmap"][0].data[0].y[1] == "t_post  \\u000a"


def test_opening_log_odds_equal_a_dense_computation(tmp_path):
    cache, prompts = cache_of(tmp_path, layer=4)
    study = scan.run(cache, READOUT, LEXICON, prompts)
    p = cache.residuals(position="t_post", dtype=torch.float64).softmax(-1)[..., [SORRY, CAPITAL_I]].sum(-1)
    expected = torch.log(p / (1 - p)).numpy()
    table = study.tables["prompts"].pivot(index="prompt", columns="layer", values="value")
    assert np.allclose(table.loc[[q.id for q in prompts]].to_numpy(), expected, atol=1e-4)


def test_unlabelled_prompts_give_curves_and_no_claim(tmp_path):
    prompts = twins(labelled=False)
    cache, _ = cache_of(tmp_path, layer=4, prompts=prompts)
    study = scan.run(cache, READOUT, LEXICON, prompts)
    assert study.claims == () and study.headlines[0] == scan.ONE_KIND
    assert set(study.tables["layers"]["group"]) == {"unlabelled"}


def test_a_vocabulary_that_splits_the_word_is_said_to_be_blind(tmp_path):
    cache, prompts = cache_of(tmp_path, layer=4)
    blind = Lexicon("apology", (), (CAPITAL_I,), (CAPITAL_I,), {CAPITAL_I: "I"})
    study = scan.run(cache, READOUT, blind, prompts)
    assert any("tga_paper can not fire here" in line for line in study.headlines)


def test_other_prompts_than_the_caches_are_refused(tmp_path):
    cache, prompts = cache_of(tmp_path)
    reordered = PromptSet("other", prompts.prompts[::-1])
    with pytest.raises(UsageError, match="other prompts"):
        scan.run(cache, READOUT, LEXICON, reordered)
