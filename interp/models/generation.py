"""What a model answers: greedy decoding of a batch of prompts."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.encoding import Encoded, Encoder
from interp.models.padding import in_batches, left_padded
from interp.models.pictures import counting_anew, picture_inputs, showing, tokenizer_of
from interp.prompts.prompt import Prompt


@torch.no_grad()
def respond(
    model: nn.Module,
    processor: Any,
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
        model: a causal or vision-language model.
        processor: its tokenizer, or the processor of a model that is to see pictures.
        prompts: what to answer; responses they may have are left out.
        max_new_tokens: most tokens of an answer.
        batch_size: how many prompts are answered at once.
        not_first: vocabulary ids that an answer must not begin with.
        progress: called after every batch with (prompts done, prompts in all).

    Returns:
        One answer per prompt; empty when the model ends at once.
    """
    encoded = Encoder(processor).encode([p.unanswered for p in prompts], ["t_post"])
    answers, done = [""] * len(encoded), 0
    for chosen in in_batches([len(e.ids) for e in encoded], [e.picture for e in encoded], batch_size):
        batch = [encoded[i] for i in chosen]
        texts = _respond_batch(model, tokenizer_of(processor), batch, max_new_tokens, not_first)
        for i, text in zip(chosen, texts, strict=True):
            answers[i] = text
        done += len(chosen)
        progress(done, len(encoded))
    return answers


def _respond_batch(
    model: nn.Module, tokenizer: Any, rows: Sequence[Encoded], max_new_tokens: int, not_first: Sequence[int]
) -> list[str]:
    # What follows the end of an answer is padding, which must be a token that decoding leaves out.
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    ids, mask = left_padded([row.ids for row in rows], pad=pad)
    device, pictures = next(model.parameters()).device, [row.picture for row in rows]
    with showing(pictures), counting_anew(model):
        generated = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # a model's default of this counts the padding, which depends on the batch
            pad_token_id=pad,
            begin_suppress_tokens=list(not_first) or None,
            **_last_logits_only(model, device),
            # Where tokens are is left to `generate`, which goes on counting from there.
            **picture_inputs(model, pictures, ids, mask, places=False),
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
