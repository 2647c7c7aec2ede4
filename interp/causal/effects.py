"""What an edit does: how likely a refusal is, what is answered, and what else changes."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from interp.causal.editing import editing
from interp.causal.edits import Edit
from interp.models.adapter import Adapter, Batch
from interp.models.encoding import Encoder
from interp.models.family_likelihood import LOWEST, family_mass
from interp.models.generation import respond
from interp.models.teacher_forcing import Answered, Divergence, Reader, answer_log_probs, answered, divergence
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt


def token_ids(adapter: Adapter, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """The vocabulary ids of prompts up to t_post, encoded as for a harvest: the ``texts`` of `editing`."""
    return [e.ids for e in Encoder(adapter.tokenizer).encode([p.unanswered for p in prompts], ["t_post"])]


def states_at(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    at: Sequence[int],
    *,
    batch_size: int = 32,
) -> Float[Tensor, "row layer place d_model"]:
    """States of prompts at places counted from their ends, as patches and placebos need them.

    Args:
        adapter: any backend.
        prompts: at least one; a row each.
        layers: ascending, 0 to L.
        at: negative, -1 is t_post; no prompt may be shorter.
        batch_size: how many prompts run at once.

    Returns:
        In the model's dtype, on the CPU.
    """
    texts = token_ids(adapter, prompts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = []
    for start in range(0, len(order), batch_size):
        chosen = [texts[i] for i in order[start : start + batch_size]]
        lengths = torch.tensor([len(text) for text in chosen])
        width = int(lengths.max())
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in chosen])
        mask = (torch.arange(width) < lengths[:, None]).long()
        parts.append(adapter.states(Batch(ids, mask, lengths[:, None] + torch.tensor(at)), layers))
    return torch.cat(parts)[torch.tensor(order).argsort()]


def refusal_log_odds(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    families: Sequence[RefusalFamily],
    edits: Sequence[Edit] = (),
    *,
    floor: float = 0.0,
    batch_size: int = 64,
) -> Float[Tensor, " prompt"]:
    """The log-odds that an edited model's answer opens as any of the families' phrases do: ln(p / (1 - p)).

    Args:
        adapter: any backend.
        prompts: what is asked; rows of patches are in this order.
        families: their openings count together, one that two families share once.
        edits: in place while the model reads the prompt and the openings.
        floor: as of `family_mass`. The default follows every opening: what a floor gives up it makes a jump of, which
            would be taken for an effect.
        batch_size: how many texts the model reads at once.

    Returns:
        In nats, float64, on the CPU, from `LOWEST` to -`LOWEST`: both p and 1 - p count as at least e^LOWEST.

    Raises:
        UsageError, ModelError: as `family_mass` and `editing`.
    """
    phrases = dict.fromkeys(phrase for family in families for phrase in family.phrases)
    together = RefusalFamily("refusal", tuple(phrases))
    with editing(adapter, edits, token_ids(adapter, prompts)):
        mass = family_mass(adapter.model, adapter.tokenizer, prompts, [together], floor=floor, batch_size=batch_size)
    p = mass.found[:, 0]
    return p.log().clamp(min=LOWEST) - torch.log1p(-p).clamp(min=LOWEST)


def answers(
    adapter: Adapter, prompts: Sequence[Prompt], edits: Sequence[Edit] = (), *, tokens: int = 32, batch_size: int = 48
) -> list[str]:
    """The greedy answers of an edited model, one per prompt.

    Args:
        adapter: any backend.
        prompts: what is asked; rows of patches are in this order.
        edits: in place from the first token of the prompt to the last of the answer.
        tokens: most tokens of an answer.
        batch_size: how many prompts are answered at once.

    Raises:
        UsageError, ModelError: as `editing`.
    """
    with editing(adapter, edits, token_ids(adapter, prompts)):
        return respond(adapter.model, adapter.tokenizer, prompts, max_new_tokens=tokens, batch_size=batch_size)


def side_effects(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    answers_of_unedited: Sequence[str],
    edits: Sequence[Edit],
    *,
    tokens: int = 32,
    batch_size: int = 32,
    unedited: Reader | None = None,
) -> Divergence:
    """What edits change along the answers that the model gives without them, read under teacher forcing.

    Args:
        adapter: any backend.
        prompts: usually harmless ones; rows of patches are in this order.
        answers_of_unedited: of `answers` without edits; may be empty.
        edits: in place while prompt and answer are read.
        tokens: most tokens of an answer that are read.
        batch_size: how many are read at once.
        unedited: how the model without edits is read; `remembering` where many edits are held against the same
            answers.

    Returns:
        By prompt: KL(unedited || edited) in nats per token, and the loss of the answer without and with the edits.

    Raises:
        UsageError, ModelError: as `editing`.
    """
    texts = answered(adapter.tokenizer, prompts, answers_of_unedited, tokens=tokens)
    asked = [text.prompt for text in texts]

    def edited(batch: Sequence[Answered]) -> Float[Tensor, "place vocab"]:
        with editing(adapter, edits, asked):
            return answer_log_probs(adapter.model, batch)

    return divergence(unedited or partial(answer_log_probs, adapter.model), edited, texts, batch_size=batch_size)
