"""Answers read back token by token: how likely they are, and how far two ways of running a model part along them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import accepts
from interp.models.encoding import Encoder
from interp.models.padding import in_batches, right_padded
from interp.models.pictures import Picture, picture_inputs, showing
from interp.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Answered:
    """The vocabulary ids of a prompt and of an answer to it, which may be empty, and the picture that is asked about.

    Its places are the end of the prompt and every token of the answer but the last: where the next token is answered.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    picture: Picture | None = None

    @property
    def places(self) -> range:
        """The token indices of its places; at least one."""
        start = len(self.prompt) - 1
        return range(start, start + max(len(self.answer), 1))


def answered(processor: Any, prompts: Iterable[Prompt], answers: Sequence[str], *, tokens: int) -> list[Answered]:
    """Prompts with answers, encoded as for a harvest.

    Args:
        processor: the model's tokenizer, or the processor of a model that is to see pictures.
        prompts: what was asked; responses they may have are replaced.
        answers: one per prompt; may be empty.
        tokens: most tokens of an answer that are kept.

    Raises:
        ModelError: for a prompt that can not be encoded, see `Encoder.encode`.
    """
    pairs = [replace(prompt, response=answer) for prompt, answer in zip(prompts, answers, strict=True)]
    encoded = Encoder(processor).encode(pairs, ["t_post"])
    ends = [e.at["t_post"] + 1 for e in encoded]
    return [Answered(e.ids[:end], e.ids[end : end + tokens], e.picture) for e, end in zip(encoded, ends, strict=True)]


@torch.no_grad()
def answer_log_probs(model: Any, texts: Sequence[Answered]) -> Float[Tensor, "place vocab"]:
    """Log-probabilities of the next token at every place of some texts, which are read in one batch.

    Args:
        model: a causal or vision-language model of transformers.
        texts: at least one; all with pictures, or all without.

    Returns:
        In nats, float32, on the model's device; the places of one text behind those of the one before.
    """
    ids, mask = right_padded([text.prompt + text.answer for text in texts])
    pictures = [text.picture for text in texts]
    device = next(model.parameters()).device
    rows = torch.tensor([row for row, text in enumerate(texts) for _ in text.places], device=device)
    places = torch.tensor([place for text in texts for place in text.places], device=device)
    options: dict[str, Any] = {"use_cache": False}
    if accepts(model, "position_ids"):
        options["position_ids"] = torch.arange(ids.shape[1], device=device).expand(ids.shape)
    if accepts(model, "logits_to_keep"):
        options["logits_to_keep"], places = places.unique(return_inverse=True)
    options |= picture_inputs(model, pictures, ids, mask)
    with showing(pictures):
        output = model(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
    return torch.log_softmax(output.logits[rows, places].float(), -1)


Reader = Callable[[Sequence[Answered]], Float[Tensor, "place vocab"]]
"""What gives log-probabilities as `answer_log_probs` does."""


def remembering(reader: Reader) -> Reader:
    """The same reader, which reads no batch of texts twice; it holds places x vocabulary in float32 for all of them."""
    kept: dict[tuple[Answered, ...], Tensor] = {}

    def read(texts: Sequence[Answered]) -> Float[Tensor, "place vocab"]:
        key = tuple(texts)
        if key not in kept:
            kept[key] = reader(texts)
        return kept[key]

    return read


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far another way of running a model parts from the usual one along the same answers; all float64, on the CPU.

    Attributes:
        kl: KL(usual || other) of the next token in nats, averaged over the places of a text; at least 0 to rounding.
        loss: surprise at the answer's tokens, run as usual, in nats per token; its exponential is the perplexity. NaN
            for an empty answer.
        other_loss: the same, run the other way.
    """

    kl: Float[Tensor, " text"]
    loss: Float[Tensor, " text"]
    other_loss: Float[Tensor, " text"]


def divergence(usual: Reader, other: Reader, texts: Sequence[Answered], *, batch_size: int = 32) -> Divergence:
    """Reads texts both ways and compares what is expected next.

    Args:
        usual: one way.
        other: another, over the same vocabulary.
        texts: prompts with answers, usually those that the usual way gave.
        batch_size: how many texts are read at once, sorted by length; the result does not depend on it but for
            rounding.
    """
    found = torch.zeros(3, len(texts), dtype=torch.float64)
    lengths = [len(text.prompt) + len(text.answer) for text in texts]
    for chosen in map(list, in_batches(lengths, [text.picture for text in texts], batch_size)):
        batch = [texts[i] for i in chosen]
        here, there = usual(batch), other(batch)
        found[:, chosen] = _compared(here, there.to(here.device), batch)
    return Divergence(*found)


def _compared(
    here: Float[Tensor, "place vocab"], there: Float[Tensor, "place vocab"], texts: Sequence[Answered]
) -> Float[Tensor, "three text"]:
    """KL and both losses of some texts."""
    kl = (here.exp() * (here - there)).sum(-1).double().cpu()
    # What follows an empty answer's only place is not known, so no token is looked up there.
    said = torch.tensor([token for text in texts for token in text.answer or (0,)], device=here.device)[:, None]
    losses = [-log_probs.gather(-1, said)[:, 0].double().cpu() for log_probs in (here, there)]
    ends = [len(text.places) for text in texts]
    means = torch.stack([torch.stack([part.mean() for part in values.split(ends)]) for values in (kl, *losses)])
    means[1:, [not text.answer for text in texts]] = torch.nan
    return means
