import math
from functools import partial
from typing import Any

import pytest
import torch

from interp.causal import Ablation, Addition, Edit, Patch, answers, editing, refusal_log_odds, side_effects, token_ids
from interp.models.family_likelihood import LOWEST
from interp.models.hooks import HooksAdapter
from interp.models.phrase_trie import compile_trie
from interp.models.teacher_forcing import Answered, answer_log_probs, answered, divergence, remembering
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import user_prompt
from tests.causal.test_editing import drawn
from tests.models.architectures import model_of
from tests.tiny import make_tokenizer, tiny_llama

TEXTS = ("How do I bake bread?", "Hi", "Explain how the lock of a door works, please.", "a letter")
PROMPTS = [user_prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]
SORRY = RefusalFamily("sorry", ("I'm sorry, but no.", "Sorry, no way.", "I am so sorry."))
SHORT = RefusalFamily("short", ("I", "How do I know?", "box"))


@pytest.fixture
def adapter() -> HooksAdapter:
    return HooksAdapter.of_module(tiny_llama(1), make_tokenizer())


@torch.no_grad()
def chance_of(adapter: HooksAdapter, ids: tuple[int, ...], families: Any, edits: list[Edit]) -> float:
    """The probability of the openings of all families, each by a whole forward of its own."""
    sequences = {s for family in families for s in compile_trie(adapter.tokenizer, family).sequences}
    whole = {s for s in sequences if not any(s[: len(o)] == o for o in sequences - {s})}
    total = 0.0
    for sequence in whole:
        with editing(adapter, edits, [ids]):
            logits = adapter.model(input_ids=torch.tensor([[*ids, *sequence]])).logits[0].double()
        steps = logits[len(ids) - 1 : -1].log_softmax(-1)
        total += math.exp(sum(float(steps[k, token]) for k, token in enumerate(sequence)))
    return total


@pytest.mark.parametrize(
    "edits", [[], [Addition(drawn(32), 2)], [Ablation(drawn(32))], [Addition(drawn(32), 1, (-1,))]]
)
def test_log_odds_are_those_of_the_openings_one_by_one(adapter: HooksAdapter, edits: list[Edit]) -> None:
    found = refusal_log_odds(adapter, PROMPTS, [SORRY, SHORT], edits)
    assert found.dtype == torch.float64
    for row, ids in enumerate(token_ids(adapter, PROMPTS)):
        p = chance_of(adapter, ids, [SORRY, SHORT], edits)
        assert float(found[row]) == pytest.approx(math.log(p / (1 - p)), abs=1e-4)


def test_a_family_that_counts_twice_counts_once(adapter: HooksAdapter) -> None:
    once = refusal_log_odds(adapter, PROMPTS, [SORRY, SHORT])
    assert torch.equal(refusal_log_odds(adapter, PROMPTS, [SORRY, SHORT, SHORT]), once)


def test_log_odds_have_a_bottom(adapter: HooksAdapter) -> None:
    adapter.model.lm_head.weight.data *= 1000  # type: ignore[union-attr, operator]
    found = refusal_log_odds(adapter, PROMPTS, [SORRY])
    assert found.isfinite().all()
    assert (found == LOWEST).any()


def test_unedited_answers_diverge_by_exactly_nothing(adapter: HooksAdapter) -> None:
    said = answers(adapter, PROMPTS, tokens=6)
    for edits in ([], [Addition(torch.zeros(32), 1)]):
        found = side_effects(adapter, PROMPTS, said, edits, tokens=6)
        assert not found.kl.any()
        assert torch.equal(found.loss, found.other_loss)


def test_a_remembering_reader_reads_once_and_gives_the_same(adapter: HooksAdapter) -> None:
    said, batches = answers(adapter, PROMPTS, tokens=6), []

    def read(texts: Any) -> torch.Tensor:
        batches.append(texts)
        return answer_log_probs(adapter.model, texts)

    unedited = remembering(read)
    for seed in range(3):
        edits = [Addition(drawn(32, seed=seed), 1)]
        found = side_effects(adapter, PROMPTS, said, edits, tokens=6, unedited=unedited)
        assert torch.equal(found.kl, side_effects(adapter, PROMPTS, said, edits, tokens=6).kl)
    assert len(batches) == 1


@pytest.mark.parametrize("name", ["llama", "gpt2", "lfm2"])
def test_side_effects_are_those_of_each_text_alone(name: str) -> None:
    adapter = HooksAdapter.of_module(model_of(name), make_tokenizer())
    said = ["bread and flour, baked", "", "a", "the door"] if name != "gpt2" else ["flour", "", "a", "door"]
    edits: list[Edit] = [Addition(drawn(32), 1), Patch(drawn(4, 1, 32), 2, (-1,))]
    found = side_effects(adapter, PROMPTS, said, edits, tokens=5, batch_size=3)
    for row, ids in enumerate(token_ids(adapter, PROMPTS)):
        answer = adapter.tokenizer(said[row], add_special_tokens=False)["input_ids"][:5]
        whole = torch.tensor([[*ids, *answer]])
        places = slice(len(ids) - 1, len(ids) - 1 + max(len(answer), 1))
        with torch.no_grad():
            here = adapter.model(input_ids=whole).logits[0, places].double().log_softmax(-1)
            with editing(adapter, edits, token_ids(adapter, PROMPTS)):
                there = adapter.model(input_ids=whole).logits[0, places].double().log_softmax(-1)
        assert float(found.kl[row]) == pytest.approx(float((here.exp() * (here - there)).sum(-1).mean()), abs=1e-5)
        if not answer:
            assert found.loss[row].isnan() and found.other_loss[row].isnan()
            continue
        for loss, log_probs in ((found.loss, here), (found.other_loss, there)):
            expected = -log_probs[range(len(answer)), answer].mean()
            assert float(loss[row]) == pytest.approx(float(expected), abs=1e-5)
    assert found.kl.min() > 1e-4


def test_two_models_diverge_both_ways(adapter: HooksAdapter) -> None:
    texts = answered(adapter.tokenizer, PROMPTS, ["bread", "a", "the", "box"], tokens=4)
    here, there = partial(answer_log_probs, adapter.model), partial(answer_log_probs, tiny_llama(2))
    found, back = divergence(here, there, texts), divergence(there, here, texts)
    assert (found.kl > 0.01).all() and not torch.allclose(found.kl, back.kl)
    assert torch.equal(found.loss, back.other_loss)


def test_answers_are_cut_and_begin_behind_the_prompt(adapter: HooksAdapter) -> None:
    texts = answered(adapter.tokenizer, PROMPTS, ["How do I bake a loaf"] * 4, tokens=3)
    assert [text.prompt for text in texts] == token_ids(adapter, PROMPTS)
    assert {len(text.answer) for text in texts} == {3}
    assert list(Answered((1, 2, 3), ()).places) == [2]
    assert list(Answered((1, 2, 3), (4, 5)).places) == [2, 3]
