"""The cosine between a state's logits and a set of words, streamed over the vocabulary."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.axes import TokenIds
from interp.lens.logit_lens import BLOCK, CHUNK
from interp.lens.readout import Readout


@torch.no_grad()
def vocabulary_cosine(
    states: Float[Tensor, "*n d_model"], readout: Readout, *, tokens: TokenIds, chunk: int = CHUNK
) -> Float[Tensor, "*n"]:
    """cos(logits, r), r the sum of the one-hot vectors of the tokens: sum of their logits / (|logits| sqrt(tokens)).

    The norm of the logits W h + b is that of a quadratic form in h, so the vocabulary is met once, to sum W'W in
    float64, and not once per state; only where a softcap stands in between, or there are fewer states than
    coordinates, are logits themselves computed, in chunks.

    Args:
        states: residual states.
        readout: the model's own.
        tokens: different ids, at least one.
        chunk: vocabulary entries read at once; changes memory and speed, not the result.

    Returns:
        In [-1, 1], float32, on the CPU; 0 where all logits are 0.
    """
    words = replace(readout, weight=readout.weight[tokens], bias=None if readout.bias is None else readout.bias[tokens])
    flat = states.reshape(-1, states.shape[-1])
    form = _quadratic(readout, chunk) if readout.softcap is None and len(flat) >= readout.weight.shape[1] else None
    parts = []
    for block in flat.split(max(1, BLOCK // max(chunk, readout.weight.shape[1]))):
        normed = readout.normed(block)
        squared = _streamed(normed, readout, chunk) if form is None else _applied(normed, *form)
        along = words.logits(normed).double().sum(-1)
        cosine = along / (squared.clamp(min=0).sqrt() * len(tokens) ** 0.5)
        parts.append(torch.where(squared > 0, cosine, 0.0).clamp(-1, 1).float().cpu())
    return torch.cat(parts).reshape(states.shape[:-1])


def _streamed(normed: Float[Tensor, "n d"], readout: Readout, chunk: int) -> Float[Tensor, " n"]:
    """Squared norms of the logits, chunk by chunk, float64."""
    squared = torch.zeros(len(normed), dtype=torch.float64, device=normed.device)
    for start in range(0, readout.vocab, chunk):
        squared += readout.logits(normed, start, min(start + chunk, readout.vocab)).double().square().sum(-1)
    return squared


def _quadratic(readout: Readout, chunk: int) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"], float]:
    """W'W, W'b and b'b with the logit scale in them, so that |logits|^2 = h'W'Wh + 2 b'Wh + b'b; float64."""
    width = readout.weight.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64, device=readout.weight.device)
    cross, constant = torch.zeros_like(gram[0]), 0.0
    for start in range(0, readout.vocab, chunk):
        weight = readout.weight[start : start + chunk].double() * readout.scale
        gram += weight.T @ weight
        if readout.bias is not None:
            bias = readout.bias[start : start + chunk].double() * readout.scale
            cross += bias @ weight
            constant += float(bias @ bias)
    return gram, cross, constant


def _applied(
    normed: Float[Tensor, "n d"], gram: Float[Tensor, "d d"], cross: Float[Tensor, " d"], constant: float
) -> Float[Tensor, " n"]:
    h = normed.double()
    return ((h @ gram) * h).sum(-1) + 2 * (h @ cross) + constant
