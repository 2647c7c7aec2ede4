"""What a model answers: greedy decoding of a batch of prompts."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.encoding import Encoder
from interp.prompts.prompt import Prompt


@torch.no_grad()
def respond(
    model: nn.Module,
    tokenizer: Any,
    prompts: Iterable[Prompt],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 48,
    not_first: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[str]:
    """The greedy answers of a Hugging Face model, in the order of the prompts, without control tokens.

    Prompts are encoded as for a harvest, so a control token in a prompt's text stays plain text here too.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to answer; responses they may have are left out.
        max_new_tokens: most tokens of an answer.
        batch_size: how many prompts are answered at once.
        not_first: vocabulary ids that an answer must not begin with.
        progress: called after every batch with (prompts done, prompts in all).

    Returns:
        One answer per prompt; empty when the model ends at once.
    """
    encoded = [e.ids for e in Encoder(tokenizer).encode([p.unanswered for p in prompts], ["t_post"])]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    answers = [""] * len(encoded)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        texts = _respond_batch(model, tokenizer, [encoded[i] for i in chosen], max_new_tokens, not_first)
        for i, text in zip(chosen, texts, strict=True):
            answers[i] = text
        progress(start + len(chosen), len(order))
    return answers


def _respond_batch(
    model: nn.Module, tokenizer: Any, rows: Sequence[Sequence[int]], max_new_tokens: int, not_first: Sequence[int]
) -> list[str]:
    # What follows the end of an answer is padding, which must be a token that decoding leaves out.
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    ids, mask = left_padded(rows, pad=pad)
    device = next(model.parameters()).device
    generated = model.generate(  # type: ignore[operator]
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,  # a model's default of this counts the padding, which depends on the batch
        pad_token_id=pad,
        begin_suppress_tokens=list(not_first) or None,
        **_last_logits_only(model, device),
    )
    texts = tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _last_logits_only(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Logits of the last token only, asked for by its index.

    `generate` would ask by number; the states are then a view, and the product with the head copies all its weights
    once per row: most of the time of a short answer on a CPU.
    """
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return {}
    return {"logits_to_keep": torch.tensor([-1], device=device)}


def left_padded(rows: Sequence[Sequence[int]], *, pad: int) -> tuple[Tensor, Tensor]:
    """Token ids (row, token) padded on the left, as generation needs them, and their mask."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids, mask
