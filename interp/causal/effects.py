"""What an edit does: how likely a refusal is, what is answered, and what else changes."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from interp.causal.editing import editing
from interp.causal.edits import Edit
from interp.errors import UsageError
from interp.models.adapter import Adapter, Batch
from interp.models.encoding import Encoded, Encoder
from interp.models.family_likelihood import LOWEST, family_mass
from interp.models.generation import respond
from interp.models.padding import in_batches, right_padded
from interp.models.teacher_forcing import Answered, Divergence, Reader, answer_log_probs, answered, divergence
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt


def encoded_prompts(adapter: Adapter, prompts: Sequence[Prompt]) -> list[Encoded]:
    """Prompts up to t_post, encoded as for a harvest: the ``texts`` of `editing`."""
    return Encoder(adapter.processor).encode([p.unanswered for p in prompts], ["t_inst", "t_post"])


def token_ids(adapter: Adapter, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """The vocabulary ids alone of such prompts, which do not tell pictures apart."""
    return [e.ids for e in encoded_prompts(adapter, prompts)]


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
    texts = encoded_prompts(adapter, prompts)
    reads = [tuple(len(text.ids) + place for place in at) for text in texts]
    return torch.stack(_read(adapter, texts, reads, layers, batch_size))


def states_of(
    adapter: Adapter, prompts: Sequence[Prompt], layers: Sequence[int], group: str, *, batch_size: int = 32
) -> list[Float[Tensor, "layer _ d_model"]]:
    """States of prompts at all tokens of a class, for patches of classes.

    Args:
        adapter: any backend that reads the prompts.
        prompts: at least one.
        layers: ascending, 0 to L.
        group: a class of tokens, t_inst or t_post.
        batch_size: how many prompts run at once.

    Returns:
        One per prompt, in the model's dtype, on the CPU.

    Raises:
        UsageError: for a prompt without a token of the class.
    """
    texts = encoded_prompts(adapter, prompts)
    reads = [text.group(group) for text in texts]
    lacking = next((prompt.id for prompt, read in zip(prompts, reads, strict=True) if not read), None)
    if lacking is not None:
        raise UsageError(f"prompt {lacking!r} has no token of the class {group!r}.")
    return _read(adapter, texts, reads, layers, batch_size)


def _read(
    adapter: Adapter, texts: Sequence[Encoded], reads: Sequence[Sequence[int]], layers: Sequence[int], batch_size: int
) -> list[Float[Tensor, "layer _ d_model"]]:
    """The states of each text at the token indices given for it."""
    found: dict[int, Tensor] = {}
    for chosen in in_batches([len(text.ids) for text in texts], [text.picture for text in texts], batch_size):
        ids, mask = right_padded([texts[i].ids for i in chosen])
        most = max(len(reads[i]) for i in chosen)
        # Where a text is read at fewer tokens it is read at its last one again.
        at = torch.tensor([[*reads[i], *[reads[i][-1]] * (most - len(reads[i]))] for i in chosen])
        pictures = tuple(texts[i].picture for i in chosen)
        states = adapter.states(Batch(ids, mask, at, pictures=pictures if any(pictures) else ()), layers)
        found |= {i: own[:, : len(reads[i])] for i, own in zip(chosen, states, strict=True)}
    return [found[i] for i in range(len(texts))]


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
    with editing(adapter, edits, encoded_prompts(adapter, prompts)):
        mass = family_mass(adapter.model, adapter.processor, prompts, [together], floor=floor, batch_size=batch_size)
    return log_odds(mass.found[:, 0])


def log_odds(p: Float[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    """ln(p / (1 - p)) in nats, where both p and 1 - p count as at least e^`LOWEST`."""
    return p.log().clamp(min=LOWEST) - torch.log1p(-p).clamp(min=LOWEST)


def answers(
    adapter: Adapter, prompts: Sequence[Prompt], edits: Sequence[Edit] = (), *, tokens: int = 32, batch_size: int = 96
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
    with editing(adapter, edits, encoded_prompts(adapter, prompts)):
        return respond(adapter.model, adapter.processor, prompts, max_new_tokens=tokens, batch_size=batch_size)


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
    texts = answered(adapter.processor, prompts, answers_of_unedited, tokens=tokens)
    asked = encoded_prompts(adapter, prompts)

    def edited(batch: Sequence[Answered]) -> Float[Tensor, "place vocab"]:
        with editing(adapter, edits, asked):
            return answer_log_probs(adapter.model, batch)

    return divergence(unedited or partial(answer_log_probs, adapter.model), edited, texts, batch_size=batch_size)
