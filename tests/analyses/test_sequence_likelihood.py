import math
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.locators.contrast import Contrast
from analyses.locators.openings import KeptOpenings, draw_groups, keep_openings
from analyses.locators.sequence_likelihood import SequenceLikelihood, likelihood_curve, sequence_likelihood
from analyses.sample import Sample
from interp.errors import ModelError, UsageError
from interp.lens import TunedLens, logit_lens
from interp.models import family_likelihood
from interp.models.adapter import Batch
from interp.models.encoding import Encoder
from interp.models.family_likelihood import LOWEST, family_mass
from interp.models.hooks import HooksAdapter
from interp.models.load import load
from interp.models.phrase_trie import PhraseTrie, compile_trie
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import PromptSet, user_prompt
from tests.models.architectures import model_of
from tests.tiny import make_tokenizer, save_tiny

TEXTS = ("How do I bake bread?", "a", "Explain how the lock of a door works.", "面包 🍞")
LABELS = ("harmful", "harmless", "harmful", "harmless")
PROMPTS = PromptSet(
    "some", tuple(user_prompt(str(i), text, label=LABELS[i], group=f"g{i // 2}") for i, text in enumerate(TEXTS))
)
SORRY = RefusalFamily("sorry", ("I'm sorry, but no.", "Sorry, no way."))
SHORT = RefusalFamily("short", ("I", "How do I know?", "box"))
FAMILIES = (SORRY, SHORT)
# Random models find every whole opening unlikely, so the floor would hide what is compared.
DEEP = -500.0


def tries_of(adapter):
    return [compile_trie(adapter.tokenizer, family) for family in FAMILIES]


@pytest.mark.parametrize("name", ["tiny_llama", "gemma2", "lfm2"])
def test_the_last_layer_is_the_family_mass(name, tiny_adapter):
    adapter = tiny_adapter if name == "tiny_llama" else HooksAdapter.of_module(model_of(name), make_tokenizer())
    found = sequence_likelihood(adapter, adapter.readout(), PROMPTS, tries_of(adapter), lowest=DEEP)
    mass = family_mass(adapter.model, adapter.tokenizer, PROMPTS, FAMILIES, floor=0.0).found
    assert found.families == ("sorry", "short") and found.values.dtype == np.float64
    np.testing.assert_allclose(found.values[:, -1], mass.log().numpy(), atol=1e-4)


def test_kept_openings_are_those_of_most_mass_and_the_last_layer_is_their_mass(tiny_adapter, monkeypatch):
    readout = tiny_adapter.readout()
    kept = keep_openings(tiny_adapter, readout, PROMPTS, FAMILIES, keep=2, floor=0.0)
    every = keep_openings(tiny_adapter, readout, PROMPTS, FAMILIES, keep=1000, floor=0.0)
    whole = family_mass(tiny_adapter.model, tiny_adapter.tokenizer, PROMPTS, FAMILIES, floor=0.0).found.mean(0)
    tries = {k.trie.family: k.trie for k in kept}
    monkeypatch.setattr(family_likelihood, "compile_trie", lambda _, family: tries[family.name])
    part = family_mass(tiny_adapter.model, tiny_adapter.tokenizer, PROMPTS, FAMILIES, floor=0.0).found
    for column, (few, all_) in enumerate(zip(kept, every, strict=True)):
        assert len(few.trie.sequences) == 2 and few.of == all_.of == len(all_.trie.sequences)
        assert all_.share == pytest.approx(1.0) and 0 < few.share < 1
        assert all_.mass == few.mass == pytest.approx(float(whole[column]), rel=1e-4)
        assert few.share * few.mass == pytest.approx(float(part[:, column].mean()), rel=1e-4)
    found = sequence_likelihood(tiny_adapter, readout, PROMPTS, [k.trie for k in kept], lowest=DEEP)
    np.testing.assert_allclose(found.values[:, -1], part.log().numpy(), atol=1e-4)


def test_every_layer_is_the_product_of_readings_one_by_one(tiny_adapter):
    """The independent way: each opening in a text of its own, each token looked up in a full reading."""
    readout, trie = tiny_adapter.readout(), tries_of(tiny_adapter)[0]
    found = sequence_likelihood(tiny_adapter, readout, PROMPTS, [trie], lowest=DEEP)
    asked = Encoder(tiny_adapter.tokenizer).encode(PROMPTS, ["t_post"])[2].ids
    total = torch.zeros(5, dtype=torch.float64)
    for s in trie.sequences:
        ids = torch.tensor([[*asked, *s]])
        at = torch.arange(len(asked) - 1, ids.shape[1] - 1)[None]
        states = tiny_adapter.states(Batch(ids, torch.ones_like(ids), at), range(5))[0].transpose(0, 1)
        reading = logit_lens(states, readout, tokens=torch.tensor(s))
        steps = torch.stack([reading.log_prob[k, :, k] for k in range(len(s))]).double()
        total += steps.sum(0).exp()
    np.testing.assert_allclose(found.of("sorry")[2], total.log().numpy(), atol=1e-4)


def test_openings_of_two_families_add_up(tiny_adapter):
    other = RefusalFamily("other", ("How do I know?", "box"))
    one, two = (compile_trie(tiny_adapter.tokenizer, family) for family in (SORRY, other))
    both = PhraseTrie("both", (*one.sequences, *two.sequences))
    assert len(both.sequences) == len(one.sequences) + len(two.sequences)
    values = sequence_likelihood(tiny_adapter, tiny_adapter.readout(), PROMPTS, [one, two, both], lowest=DEEP).values
    np.testing.assert_allclose(np.logaddexp(values[..., 0], values[..., 1]), values[..., 2], atol=1e-9)


def test_impossible_openings_get_the_floor(tiny_adapter):
    never = 7
    trie, empty = PhraseTrie("never", ((never, 9), (5, never))), PhraseTrie("empty", ())
    tiny_adapter.model.lm_head.weight.data[never] = 0.0
    bias = torch.zeros(tiny_adapter.readout().vocab)
    bias[never] = -1e4
    readout = type(tiny_adapter.readout())(tiny_adapter.readout().norm, tiny_adapter.readout().weight, bias)
    found = sequence_likelihood(tiny_adapter, readout, PROMPTS, [trie, empty])
    assert (found.values == LOWEST).all()
    assert (sequence_likelihood(tiny_adapter, readout, PROMPTS, [empty]).values == LOWEST).all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_and_layers_do_not_matter(tiny_adapter, batch_size):
    readout, tries = tiny_adapter.readout(), tries_of(tiny_adapter)
    whole = sequence_likelihood(tiny_adapter, readout, PROMPTS, tries, lowest=DEEP)
    some = sequence_likelihood(tiny_adapter, readout, PROMPTS, tries, lowest=DEEP, layers=[0, 3], batch_size=batch_size)
    assert some.layers == (0, 3)
    np.testing.assert_allclose(some.values, whole.values[:, [0, 3]], atol=1e-4)


def test_nnsight_reads_the_same(tmp_path: Path):
    source = ModelSource("local", save_tiny(tmp_path))
    values = []
    for backend in ("hooks", "nnsight"):
        adapter = load(source, Runtime(backend, "fp32", "cpu"))
        readout = adapter.readout()
        kept = keep_openings(adapter, readout, PROMPTS, FAMILIES, keep=3, floor=0.0)
        values.append(sequence_likelihood(adapter, readout, PROMPTS, [k.trie for k in kept], lowest=DEEP).values)
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)


def test_a_tuned_lens_is_read_through_and_leaves_the_last_layer(tiny_adapter):
    readout, tries = tiny_adapter.readout(), tries_of(tiny_adapter)
    random = torch.Generator().manual_seed(0)
    matrices, biases = torch.randn(5, 32, 32, generator=random) / 8, torch.randn(5, 32, generator=random)
    matrices[-1], biases[-1] = 0, 0
    lens = TunedLens((0, 1, 2, 3, 4), matrices, biases, ("ridge",) * 5, (0.0,) * 5, (0.0,) * 5, (1, 1, 1), {})
    plain = sequence_likelihood(tiny_adapter, readout, PROMPTS, tries, lowest=DEEP)
    tuned = sequence_likelihood(tiny_adapter, readout, PROMPTS, tries, lowest=DEEP, lens=lens)
    np.testing.assert_array_equal(tuned.values[:, -1], plain.values[:, -1])
    assert np.abs(tuned.values[:, :-1] - plain.values[:, :-1]).min() > 1e-3


def test_a_planted_contrast_is_recovered_and_bounded_by_its_draws():
    both = [(str(i // 2), LABELS[i % 2]) for i in range(80)]
    prompts = tuple(user_prompt(group + kind, "a", label=kind, group=group) for group, kind in both)
    sample = Sample.of(PromptSet("many", prompts), seed=0)
    noise = np.random.default_rng(0).normal(size=(80, 3, 1))
    noise[sample.harmful, 2] += 4
    found = SequenceLikelihood(("f",), (0, 1, 2), noise)
    curve = likelihood_curve(found, "f", Contrast.of(sample))
    assert curve.values[2] == pytest.approx(4, abs=0.6) and np.abs(curve.values[:2]).max() < 0.7
    assert curve.onset().value == 2 and curve.height.lo > 3 and curve.n == 80
    with pytest.raises(UsageError, match="was not read"):
        likelihood_curve(found, "g", Contrast.of(sample))


def test_groups_are_drawn_whole():
    drawn = [draw_groups(PROMPTS, 2, seed=seed) for seed in range(8)]
    assert {tuple(p.id for p in d) for d in drawn} == {("0", "1"), ("2", "3")}
    assert len(draw_groups(PROMPTS, 1, seed=0)) == 2 and len(draw_groups(PROMPTS, 99, seed=0)) == 4


def test_a_family_without_mass_says_so(tiny_adapter):
    kept = keep_openings(tiny_adapter, tiny_adapter.readout(), PROMPTS, [SORRY], keep=1, floor=0.99)[0]
    assert isinstance(kept, KeptOpenings) and math.isnan(kept.share) and kept.mass == 0
    assert len(kept.trie.sequences[0]) == min(map(len, compile_trie(tiny_adapter.tokenizer, SORRY).sequences))


def test_what_can_not_be_read_is_refused(tiny_adapter):
    readout, tries = tiny_adapter.readout(), tries_of(tiny_adapter)
    with pytest.raises(UsageError, match="batch_size 0"):
        sequence_likelihood(tiny_adapter, readout, PROMPTS, tries, batch_size=0)
    with pytest.raises(UsageError, match="keep 0"):
        keep_openings(tiny_adapter, readout, PROMPTS, FAMILIES, keep=0)
    tiny_adapter.tokenizer.model_max_length = 60
    with pytest.raises(ModelError, match="leave no room"):
        sequence_likelihood(tiny_adapter, readout, PROMPTS, [PhraseTrie("long", ((5,) * 60,))])
