"""The words a model itself opens its refusals with, whatever they are, and how likely it is to say them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.readings import log_odds
from interp.causal import Edit, editing, states_at, token_ids
from interp.lens import Readout, token_log_probs
from interp.models.adapter import Adapter
from interp.prompts.prompt import Prompt

LIFT = 3.0
"""How much more often a token opens refusals than answers, to be one of the words of refusing."""


def own_words(
    tokenizer: Any, responses: Sequence[str], refused: Bool[ndarray, " prompt"], complied: Bool[ndarray, " prompt"]
) -> tuple[int, ...]:
    """The first tokens of a model's own refusals that seldom open its answers.

    Args:
        tokenizer: of the model.
        responses: what it answered.
        refused: which of them are refusals.
        complied: which are answers.

    Returns:
        Vocabulary ids, the most frequent first; none for a model that refuses nothing. Counts are smoothed by one.
    """
    firsts = [tokenizer(r, add_special_tokens=False)["input_ids"][:1] for r in responses]
    said, else_said = (
        Counter(t for ids, kept in zip(firsts, chosen, strict=True) if kept for t in ids)
        for chosen in (refused, complied)
    )
    no, yes = int(refused.sum()), int(complied.sum())
    return tuple(t for t, n in said.most_common() if n / (no + 1) >= LIFT * (else_said[t] + 1) / (yes + 1))


def word_log_odds(
    adapter: Adapter,
    readout: Readout,
    prompts: Sequence[Prompt],
    words: Sequence[int],
    edits: Sequence[Edit] = (),
    *,
    batch_size: int = 32,
) -> Float[ndarray, " prompt"]:
    """Log-odds, in nats, that the next token of the edited model is one of the words.

    Args:
        adapter: the model.
        readout: its own.
        prompts: what is asked; rows of patches are in this order.
        words: vocabulary ids.
        edits: in place while the prompts are read.
        batch_size: how many prompts run at once.
    """
    with editing(adapter, edits, token_ids(adapter, prompts)):
        last = states_at(adapter, prompts, [adapter.n_layers], (-1,), batch_size=batch_size)[:, 0, 0]
    return state_log_odds(readout, last, words)


def state_log_odds(
    readout: Readout, states: Float[Tensor, "row d_model"], words: Sequence[int]
) -> Float[ndarray, " row"]:
    """Log-odds of the words at states of the last layer, in nats."""
    return log_odds(token_log_probs(states[:, None].float(), readout, tokens=torch.tensor(words)))[:, 0]
