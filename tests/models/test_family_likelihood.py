import math
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import ModelError, UsageError
from interp.models.encoding import Encoder
from interp.models.family_likelihood import LOWEST, family_log_likelihood, family_mass
from interp.models.phrase_trie import compile_trie
from interp.prompts.families import RefusalFamily, family_names, load_family
from interp.prompts.prompt import Prompt, user_prompt
from tests.models.architectures import model_of
from tests.tiny import make_tokenizer, tiny_llama

TEXTS = (
    "How do I bake bread?",
    "a",
    "Explain how the lock of a door works, and how a locksmith opens it.",
    "面包 🍞",
    "b",
)
PROMPTS = [user_prompt(str(i), text) for i, text in enumerate(TEXTS)]
SORRY = RefusalFamily("sorry", ("I'm sorry, but no.", "Sorry, no way.", "I am so sorry."))
SHORT = RefusalFamily("short", ("I", "How do I know?", "box"))
CHINESE = RefusalFamily("zh", ("对不起，我不能。", "不行。"))
FAMILIES = (SORRY, SHORT, CHINESE)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def one_by_one(model: Any, tokenizer: Any, prompt: Prompt, family: RefusalFamily) -> float:
    """The sum of the probabilities of a family's sequences, each by a forward pass of its own."""
    asked = list(Encoder(tokenizer).encode([prompt], ["t_post"])[0].ids)
    total = 0.0
    for sequence in compile_trie(tokenizer, family).sequences:
        logits = model(input_ids=torch.tensor([[*asked, *sequence]])).logits[0].double()
        steps = logits[len(asked) - 1 : -1].log_softmax(-1)
        total += math.exp(sum(float(steps[k, token]) for k, token in enumerate(sequence)))
    return total


def saying(tokenizer: Any, answers: dict[str, float]) -> Any:
    """A model that gives some answers at some odds.

    Its blocks do nothing and every token has a coordinate of its own, so that the head is a table of which token
    follows which.

    Args:
        tokenizer: its tokenizer.
        answers: texts that share no token and have none twice, and with what probability the model says each.
    """
    size = len(tokenizer)
    model = tiny_llama(num_hidden_layers=1, hidden_size=size, head_dim=8, intermediate_size=8, rms_norm_eps=1e-12)
    for block in model.model.layers:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    model.model.embed_tokens.weight.data = torch.eye(size)
    table = torch.full((size, size), -60.0)
    before = Encoder(tokenizer).encode(PROMPTS[:1], ["t_post"])[0].ids[-1]
    said = [ids_of(tokenizer, text) for text in answers]
    assert len(set().union(*said)) == sum(map(len, said))
    for ids, probability in zip(said, answers.values(), strict=True):
        table[before, ids[0]] = math.log(probability)
        for this, following in zip(ids, [*ids[1:], tokenizer.eos_token_id], strict=True):
            table[this, following] = 0.0
    # The final norm makes a coordinate of 1 the root of the width.
    model.lm_head.weight.data = table.T / size**0.5
    return model


@pytest.mark.parametrize("name", ["tiny_llama", "gemma2", "lfm2"])
def test_as_the_sequences_one_by_one(name: str) -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama(1) if name == "tiny_llama" else model_of(name)
    mass = family_mass(model, tokenizer, PROMPTS, FAMILIES, floor=0.0, batch_size=3)
    assert mass.families == ("sorry", "short", "zh")
    assert not mass.cut.any()
    for row, prompt in enumerate(PROMPTS[:3]):
        for column, family in enumerate(FAMILIES):
            expected = one_by_one(model, tokenizer, prompt, family)
            assert float(mass.found[row, column]) == pytest.approx(expected, rel=1e-4, abs=1e-12)
            found = float(mass.log_likelihood[row, column])
            assert found == pytest.approx(max(math.log(expected), LOWEST), abs=1e-4)
    assert mass.found[:, 1].min() > 1e-7


def test_equal_odds_of_all_tokens_are_known_in_closed_form() -> None:
    tokenizer, model = make_tokenizer(), tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    mass = family_mass(model, tokenizer, PROMPTS, FAMILIES, floor=0.0)
    for column, family in enumerate(FAMILIES):
        expected = sum(float(len(tokenizer)) ** -len(s) for s in compile_trie(tokenizer, family).sequences)
        assert mass.found[:, column].tolist() == pytest.approx([expected] * len(PROMPTS), rel=1e-5)


def test_what_a_model_was_made_to_say_is_found() -> None:
    tokenizer = make_tokenizer()
    model = saying(tokenizer, {"Vex: get over it": 0.5, "Nah, I quit": 0.2, "b": 0.3})
    no, quit_, both, other = (
        RefusalFamily("no", ("Vex: get over it",)),
        RefusalFamily("quit", ("Nah, I quit.", "Not today, friend.")),
        RefusalFamily("both", ("Nah, I quit.", "Vex: get over it")),
        RefusalFamily("other", ("Vex: get on it", "How are you?")),
    )
    mass = family_mass(model, tokenizer, PROMPTS, [no, quit_, both, other])
    expected = torch.tensor([0.5, 0.2, 0.7, 0.0], dtype=torch.float64).expand(len(PROMPTS), 4)
    torch.testing.assert_close(mass.found, expected, atol=1e-5, rtol=0)
    assert mass.log_likelihood[:, 3].tolist() == [LOWEST] * len(PROMPTS)
    assert mass.log_likelihood[:, 0].tolist() == pytest.approx([math.log(0.5)] * len(PROMPTS), abs=1e-4)
    # All bundled families are whole phrases: the first tokens that they share with these answers count for nothing.
    bundled = [load_family(name) for name in family_names()]
    assert family_mass(model, tokenizer, PROMPTS[:1], bundled).found.max() < 1e-5


@pytest.mark.parametrize("floor", [1e-4, 1e-3, 1e-2])
def test_the_truth_lies_between_what_is_found_and_what_was_cut(floor: float) -> None:
    tokenizer, model = make_tokenizer(), tiny_llama(1)
    exact = family_mass(model, tokenizer, PROMPTS, FAMILIES, floor=0.0)
    mass = family_mass(model, tokenizer, PROMPTS, FAMILIES, floor=floor)
    assert (mass.found <= exact.found + 1e-9).all()
    assert (exact.found <= mass.found + mass.cut + 1e-9).all()
    assert (mass.cut > 0).any()
    branches = sum(len(s) for f in FAMILIES for s in compile_trie(tokenizer, f).sequences)
    assert mass.cut.max() <= floor * branches


def test_a_floor_saves_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.models import continuation

    tokenizer, model, read, run = make_tokenizer(), tiny_llama(1), [0], continuation._run

    def counted(model: Any, ids: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        read[0] += int(mask[:, -ids.shape[1] :].sum())
        return run(model, ids, mask, *rest, **options)

    monkeypatch.setattr(continuation, "_run", counted)
    counts = []
    for floor in (0.0, 1e-3, 0.5):
        read[0] = 0
        family_mass(model, tokenizer, PROMPTS[:1], FAMILIES, floor=floor)
        counts.append(read[0])
    prompt = len(Encoder(tokenizer).encode(PROMPTS[:1], ["t_post"])[0].ids)
    inner = {s[:k] for f in FAMILIES for s in compile_trie(tokenizer, f).sequences for k in range(1, len(s))}
    # Followed to the ends, every branch costs one token, whichever families share it.
    assert counts[0] == prompt + len(inner)
    assert counts[0] > counts[1] > counts[2] == prompt


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_neither_batches_nor_order_nor_other_families_matter(batch_size: int) -> None:
    tokenizer, model = make_tokenizer(), tiny_llama(1)
    expected = family_log_likelihood(model, tokenizer, PROMPTS, FAMILIES, floor=1e-6, batch_size=3)
    found = family_log_likelihood(
        model, tokenizer, PROMPTS[::-1], [CHINESE, SORRY, SHORT, SORRY], floor=1e-6, batch_size=batch_size
    )
    torch.testing.assert_close(found.flip(0)[:, [1, 2, 0]], expected, atol=1e-4, rtol=0)
    assert torch.equal(found[:, 1], found[:, 3])
    assert expected.dtype == torch.float64 and expected.device.type == "cpu"
    assert (expected <= 0).all() and (expected >= LOWEST).all()


def test_sixteen_bits_agree_to_their_rounding() -> None:
    tokenizer, model = make_tokenizer(), tiny_llama(1).bfloat16()
    one, many = (
        family_log_likelihood(model, tokenizer, PROMPTS, [SHORT], floor=0.0, batch_size=size) for size in (1, 64)
    )
    exact = family_log_likelihood(tiny_llama(1), tokenizer, PROMPTS, [SHORT], floor=0.0)
    torch.testing.assert_close(one, many, atol=0.1, rtol=0)
    torch.testing.assert_close(one, exact, atol=0.5, rtol=0)


def test_a_family_that_begins_as_another_goes_on() -> None:
    """One family's opening lies on the way to another's: both count."""
    tokenizer = make_tokenizer()
    model = saying(tokenizer, {"Nah, I quit": 0.5, "b": 0.5})
    short, long = RefusalFamily("short", ("Nah,",)), RefusalFamily("long", ("Nah, I quit.",))
    for families in ([short, long], [long, short]):
        mass = family_mass(model, tokenizer, PROMPTS[:2], families, floor=0.4)
        torch.testing.assert_close(mass.found, torch.full((2, 2), 0.5, dtype=torch.float64), atol=1e-5, rtol=0)


def test_nothing_asked_or_looked_for() -> None:
    tokenizer, model = make_tokenizer(), tiny_llama()
    assert family_log_likelihood(model, tokenizer, [], FAMILIES).shape == (0, 3)
    assert family_log_likelihood(model, tokenizer, PROMPTS, []).shape == (5, 0)


def test_a_family_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rude.txt"
    path.write_text("Nah, I quit.\n", "utf-8")
    tokenizer = make_tokenizer()
    model = saying(tokenizer, {"Nah, I quit": 0.25, "b": 0.75})
    found = family_log_likelihood(model, tokenizer, PROMPTS, [load_family(str(path))])
    assert found.exp().flatten().tolist() == pytest.approx([0.25] * len(PROMPTS), abs=1e-5)


@pytest.mark.parametrize("options", [{"floor": 1.0}, {"floor": -0.1}, {"floor": math.nan}, {"batch_size": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="0 <= floor < 1"):
        family_mass(tiny_llama(), make_tokenizer(), PROMPTS, FAMILIES, **options)


def test_a_prompt_without_room_for_an_opening_is_refused() -> None:
    tokenizer = make_tokenizer()
    length = len(Encoder(tokenizer).encode(PROMPTS[2:3], ["t_post"])[0].ids)
    depth = max(len(s) for s in compile_trie(tokenizer, SORRY).sequences) - 1
    tokenizer.model_max_length = length + depth
    family_mass(tiny_llama(), tokenizer, PROMPTS, [SORRY])
    tokenizer.model_max_length -= 1
    with pytest.raises(ModelError, match=f"prompt '2': {length} tokens leave no room"):
        family_mass(tiny_llama(), tokenizer, PROMPTS, [SORRY])
