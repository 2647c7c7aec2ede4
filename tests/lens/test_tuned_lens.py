import json
from dataclasses import replace

import pytest
import torch

from interp.errors import ModelMismatch, UsageError
from interp.lens import Readout, TunedLens, logit_lens, translator
from interp.lens.translator import divergences
from interp.lens.tuned_lens import split_groups

ROWS, D_MODEL, VOCAB = 240, 12, 83
GROUPS = [f"g{i // 2}" for i in range(ROWS)]
MODEL = {"name": "a model", "weights": "abc"}


def readout_of(dtype=torch.float32, **options):
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(VOCAB, D_MODEL, generator=random).to(dtype)
    return Readout(norm=torch.nn.LayerNorm(D_MODEL, elementwise_affine=False), weight=weight, **options)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(seed=0):
    """Final states, and two layers that are invertible affine maps of them."""
    final = noise(ROWS, D_MODEL, seed=seed)
    maps = [torch.eye(D_MODEL) * 2 + noise(D_MODEL, D_MODEL, seed=seed + 1 + i) / 4 for i in range(2)]
    return torch.stack([*(final @ m + noise(D_MODEL, seed=seed + 5) * 3 for m in maps), final], 1)


def dense_kl(states, final, readout):
    def log_p(x):
        logits = readout.norm(x.float()).double() @ readout.weight.double().T
        if readout.bias is not None:
            logits = logits + readout.bias.double()
        logits = logits * readout.scale
        if readout.softcap is not None:
            logits = readout.softcap * torch.tanh(logits / readout.softcap)
        return logits.log_softmax(-1)

    p = log_p(final)
    return (p.exp() * (p - log_p(states))).sum(-1)


@pytest.fixture(scope="module")
def lens():
    return TunedLens.fit(planted(), (2, 5, 9), readout_of(), GROUPS, model=MODEL)


def test_an_affine_map_of_the_final_state_is_undone(lens):
    assert min(lens.kl_before[:2]) > 0.5
    assert max(lens.kl_after) < 1e-3
    fresh = planted(seed=0)[torch.tensor([0, 7, 100])]
    assert dense_kl(lens.translate(fresh)[:, 0], fresh[:, -1], readout_of()).max() < 1e-2


def test_the_last_layer_is_left_alone(lens):
    states = noise(4, 3, D_MODEL, seed=9)
    assert torch.equal(lens.translate(states)[:, -1], states[:, -1])
    assert lens.stages[-1] == "identity" and lens.kl_before[-1] == lens.kl_after[-1] == 0.0


def test_the_logit_lens_takes_translated_states_and_says_how_far_they_are(lens):
    states, readout = planted(), readout_of()
    reading = logit_lens(lens.translate(states), readout, tokens=torch.tensor([3]))
    plain = logit_lens(states, readout, tokens=torch.tensor([3]))
    assert reading.kl_to_final[:, :2].mean() < 1e-2 < plain.kl_to_final[:, :2].mean()
    assert torch.equal(reading.kl_to_final[:, -1], plain.kl_to_final[:, -1])
    torch.testing.assert_close(reading.entropy, plain.entropy[:, -1:].expand(-1, 3), atol=0.05, rtol=0)


def test_the_divergences_told_are_those_of_the_judging_rows(lens):
    states, readout = planted(), readout_of()
    judged = split_groups(GROUPS, seed=0)[2]
    for way, told in ((states, lens.kl_before), (lens.translate(states), lens.kl_after)):
        for layer in range(3):
            kl = dense_kl(way[judged, layer], states[judged, -1], readout).mean()
            assert told[layer] == pytest.approx(float(kl), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_states_that_say_nothing_are_not_read_worse_than_by_the_logit_lens(seed):
    states = noise(ROWS, 4, D_MODEL, seed=10 + seed)
    lens = TunedLens.fit(states, range(4), readout_of(), GROUPS, model=MODEL, seed=seed)
    assert all(after <= before for before, after in zip(lens.kl_before, lens.kl_after, strict=True))
    # A constant is the best that is left: no translator knows more than how often each token follows.
    judged = split_groups(GROUPS, seed=seed)[2]
    p = readout_of().logits(readout_of().normed(states[:, -1])).softmax(-1)
    constant = (p[judged] * (p[judged].log() - p.mean(0).log())).sum(-1).mean()
    assert min(lens.kl_after[:3]) > 0.9 * float(constant)


def test_where_nothing_is_won_the_identity_stays():
    final = noise(ROWS, D_MODEL)
    states = torch.stack([final, final], 1)
    lens = TunedLens.fit(states, (0, 1), readout_of(), GROUPS, model=MODEL)
    assert lens.kl_after[0] <= lens.kl_before[0] < 1e-6
    torch.testing.assert_close(lens.translate(states)[:, 0], final, atol=1e-3, rtol=0)


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"scale": 0.25}, {"bias": torch.linspace(-2, 2, VOCAB)}])
@pytest.mark.parametrize("block", [1, 2**24])
def test_divergences_equal_a_dense_computation(options, block, monkeypatch):
    monkeypatch.setattr(translator, "BLOCK", block)
    readout, final = readout_of(**options), noise(9, D_MODEL)
    ways = [noise(9, D_MODEL, seed=1), noise(9, D_MODEL, seed=2) * 30, final]
    found = divergences(ways, final, readout)
    expected = torch.stack([dense_kl(way, final, readout) for way in ways], 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(divergences(ways, final, readout, quick=True), found)
    rough = divergences(ways, final, readout_of(torch.bfloat16, **options), quick=True)
    exact = divergences(ways, final, readout_of(torch.bfloat16, **options))
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)


def test_descent_on_a_part_of_the_vocabulary_goes_down(monkeypatch):
    """With few frequent tokens and a weighted sample of the rest it still descends the whole divergence."""
    monkeypatch.setattr(translator, "FREQUENT", 20)
    monkeypatch.setattr(translator, "RARE", 30)
    monkeypatch.setattr(translator, "RATE", 1e-2)
    states, readout = planted(), readout_of()
    goal = translator.target(states[:, -1], states[:50, -1], readout)
    assert len(goal.frequent) == 20 and len(goal.rare) == VOCAB - 20
    start = translator.identity(D_MODEL, states.device)
    *_, last = translator.descend(start, states[:, 0], goal, readout, seed=0)
    before, after = divergences([states[:, 0], last(states[:, 0])], states[:, -1], readout).mean(0).tolist()
    assert after < 0.7 * before


def test_a_random_state_of_the_process_is_left_alone_and_fits_repeat(lens):
    before = torch.random.get_rng_state()
    again = TunedLens.fit(planted(), (2, 5, 9), readout_of(), GROUPS, model=MODEL)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again.matrices, lens.matrices) and again.kl_after == lens.kl_after


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_parted(seed):
    groups = [f"g{i}" for i in torch.randint(0, 3 + 5 * seed, (60,)).tolist()] + ["g0", "g1", "g2"]
    parts = split_groups(groups, seed=seed)
    assert sorted(row for rows in parts for row in rows) == list(range(len(groups)))
    names = [{groups[row] for row in rows} for rows in parts]
    assert all(names) and not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_saved_and_read_again(lens, tmp_path):
    lens.save(tmp_path / "new" / "lens")
    lens.save(tmp_path / "new" / "lens")
    found = TunedLens.load(tmp_path / "new" / "lens", model=MODEL)
    assert torch.equal(found.matrices, lens.matrices) and torch.equal(found.biases, lens.biases)
    for field in ("layers", "stages", "kl_before", "kl_after", "rows", "model"):
        assert getattr(found, field) == getattr(lens, field)
    assert {p.name for p in (tmp_path / "new" / "lens").iterdir()} == {"tuned_lens.json", "tuned_lens.safetensors"}


@pytest.mark.parametrize(
    ("model", "field"), [({**MODEL, "weights": "xyz"}, "model.weights"), ({"name": "a model"}, "model.weights")]
)
def test_another_model_is_refused_by_the_field_that_differs(lens, tmp_path, model, field):
    with pytest.raises(ModelMismatch) as refused:
        TunedLens.load(lens.save(tmp_path), model=model)
    assert refused.value.field == field


@pytest.mark.parametrize("layers", [[], ["matrices"]])
def test_a_damaged_lens_is_refused(lens, tmp_path, layers):
    lens.save(tmp_path)
    record = json.loads((tmp_path / "tuned_lens.json").read_text())
    (tmp_path / "tuned_lens.json").write_text(json.dumps({**record, "layers": layers}))
    with pytest.raises(UsageError, match="fit the lens again"):
        TunedLens.load(tmp_path, model=MODEL)
    lens.save(tmp_path)
    data = bytearray((tmp_path / "tuned_lens.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "tuned_lens.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match="expected sha256"):
        TunedLens.load(tmp_path, model=MODEL)
    (tmp_path / "tuned_lens.json").unlink()
    with pytest.raises(UsageError, match="give the folder"):
        TunedLens.load(tmp_path, model=MODEL)


def test_some_layers_are_translated_by_their_numbers(lens):
    states = planted()
    found = lens.translate(states[:, [1, 2]], (5, 9))
    torch.testing.assert_close(found, lens.translate(states)[:, 1:])
    with pytest.raises(UsageError, match="layers \\[1, 9\\]"):
        lens.translate(states[:, [1, 2]], (1, 9))
    with pytest.raises(UsageError, match="translates 12 coordinates"):
        lens.translate(states[..., :5])


def test_what_can_not_be_fitted_is_refused():
    states, readout = planted(), readout_of()
    for layers, groups, values, words in [
        ((5, 2, 9), GROUPS, states, "ascending"),
        ((2, 5, 9), GROUPS[:-1], states, "239 groups for 240 rows"),
        ((2, 5, 9), ["a", "b"] * (ROWS // 2), states, "at least three"),
        ((2, 5, 9), GROUPS, states / 0, "NaN or infinity"),
    ]:
        with pytest.raises(UsageError, match=words):
            TunedLens.fit(values, layers, readout, groups, model=MODEL)
    assert replace(readout, softcap=3.0).only(torch.tensor([4, 2])).softcap == 3.0
