import numpy as np
import pandas as pd
import pytest
import torch

from interp.causal import Ablation, Addition, Intervention, Patch, placebo, states_at, trial
from interp.causal.trial import COLUMNS
from interp.models.hooks import HooksAdapter
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import PromptSet, user_prompt
from tests.tiny import make_tokenizer, tiny_llama

WORD = "I"
NO = RefusalFamily("no", (WORD,))
ASKED = ("bread", "door", "letter", "noise", "wizard", "lock")
PROMPTS = PromptSet(
    "asked",
    tuple(
        user_prompt(f"{label} {word}", f"{start} the {word}", label=label, group=word)
        for word in ASKED
        for label, start in (("harmful", "Break"), ("harmless", "Explain"))
    ),
)


@pytest.fixture(scope="module")
def refusing() -> tuple[HooksAdapter, torch.Tensor]:
    """A model that says ``I`` as far as its last state holds a direction, which every prompt's last token gives it.

    Its blocks do nothing, so the state is the embedding of the last token and what is added to it.
    """
    tokenizer = make_tokenizer()
    model = tiny_llama(num_hidden_layers=2)
    for block in model.model.layers:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    direction = torch.zeros(32)
    direction[0] = 1
    model.model.embed_tokens.weight.data[:, 0] = 0
    model.lm_head.weight.data *= 0.2
    model.lm_head.weight.data[tokenizer(WORD, add_special_tokens=False)["input_ids"][0]] = 2 * direction
    # The newline before the answer carries the direction.
    last = tokenizer("assistant\n", add_special_tokens=False)["input_ids"][-1]
    model.model.embed_tokens.weight.data[last, 0] = 0.6
    return HooksAdapter.of_module(model, tokenizer), direction


def cell(table: pd.DataFrame, name: str, placebo_name: str, metric: str, prompts: str = "harmful") -> pd.Series:
    chosen = table.query("intervention == @name and placebo == @placebo_name")
    return chosen.query("metric == @metric and prompts == @prompts").squeeze()


def test_a_planted_direction_is_necessary_and_sufficient_and_its_placebo_neither(
    refusing: tuple[HooksAdapter, torch.Tensor],
) -> None:
    adapter, direction = refusing
    out, back = Ablation(direction), Addition(6 * direction, 1)
    real = [Intervention("out", (out,)), Intervention("back", (back,))]
    false = [
        Intervention(name, (placebo(edit, seed),), f"random {seed}")
        for name, edit in (("out", out), ("back", back))
        for seed in range(2)
    ]
    table = trial(adapter, PROMPTS, [*real, *false], [NO], tokens=1)
    assert tuple(table.columns) == COLUMNS
    assert set(table["intervention"]) == {"none", "out", "back"}
    needed = cell(table, "out", "", "log_odds_change")
    assert needed["hi"] < -3 and needed["n"] == len(ASKED)
    assert cell(table, "back", "", "log_odds_change", "harmless")["lo"] > 1
    assert cell(table, "out", "", "refused")["value"] == 0 < cell(table, "none", "", "refused")["value"]
    assert cell(table, "out", "", "refused_change")["hi"] < 0
    for seed in range(2):
        assert abs(cell(table, "out", f"random {seed}", "log_odds_change")["value"]) < abs(needed["value"]) / 5
        assert cell(table, "out", f"random {seed}", "refused_change")["value"] == 0
        assert cell(table, "back", f"random {seed}", "log_odds_change", "harmless")["value"] < 0
    # Where every prompt of a kind was refused, none is left for kl_answered: no number, and it says n = 0.
    some = table[table["n"] > 0]
    assert table.loc[table["n"] == 0, ["value", "lo", "hi"]].isna().all(axis=None)
    rounding = 1e-9 * some["value"].abs()
    assert (some["lo"] <= some["value"] + rounding).all() and (some["value"] <= some["hi"] + rounding).all()
    assert (table.query("metric == 'kl'")["value"] >= 0).all()
    assert cell(table, "out", "", "kl")["value"] > cell(table, "out", "random 0", "kl")["value"]
    assert cell(table, "out", "", "perplexity")["value"] > cell(table, "out", "", "perplexity_unedited")["value"] >= 1


def test_levels_and_changes_are_of_the_same_numbers(refusing: tuple[HooksAdapter, torch.Tensor]) -> None:
    adapter, direction = refusing
    table = trial(adapter, PROMPTS, [Intervention("out", (Ablation(direction),))], [NO], tokens=1)
    for level in ("log_odds", "refused"):
        change = cell(table, "out", "", level)["value"] - cell(table, "none", "", level)["value"]
        assert cell(table, "out", "", f"{level}_change")["value"] == pytest.approx(change)


def test_rows_of_patches_are_those_of_all_prompts() -> None:
    """Patching every prompt with its own states changes nothing, whatever kind of prompt it is."""
    adapter = HooksAdapter.of_module(tiny_llama(3), make_tokenizer())
    own = Patch(states_at(adapter, PROMPTS.prompts, [2], [-1])[:, 0], 2, (-1,))
    table = trial(adapter, PROMPTS, [Intervention("own", (own,))], [NO], tokens=3)
    for kind in ("harmful", "harmless"):
        assert abs(cell(table, "own", "", "log_odds_change", kind)["value"]) < 1e-4
        assert cell(table, "own", "", "kl", kind)["value"] < 1e-6


def test_empty_answers_have_no_perplexity(refusing: tuple[HooksAdapter, torch.Tensor]) -> None:
    _, direction = refusing
    silent = HooksAdapter.of_module(tiny_llama(1), make_tokenizer())
    silent.model.lm_head.weight.data[:] = 0
    silent.model.lm_head.weight.data[silent.tokenizer.eos_token_id] = silent.model.model.norm.weight.data
    silent.model.model.embed_tokens.weight.data.abs_()
    for block in silent.model.model.layers:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    table = trial(silent, PROMPTS, [Intervention("out", (Ablation(direction),))], [NO], tokens=1)
    found = cell(table, "out", "", "perplexity")
    assert found["n"] == 0 and np.isnan(found["value"])
    assert cell(table, "out", "", "kl")["n"] == len(ASKED)
