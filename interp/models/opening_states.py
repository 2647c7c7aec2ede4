"""The states in which a model is about to say each token of some openings: teacher forcing through an adapter."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.adapter import Adapter, Batch
from interp.models.padding import right_padded
from interp.models.pictures import Picture


def contexts_of(sequences: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """What stands before each token of each sequence: all their proper beginnings, each once, the empty one first.

    Args:
        sequences: vocabulary ids; none gives no context.
    """
    return tuple(sorted({s[:k] for s in sequences for k in range(len(s))}, key=lambda c: (len(c), c)))


def opening_states(
    adapter: Adapter,
    asked: Sequence[int],
    contexts: Sequence[tuple[int, ...]],
    layers: Sequence[int],
    *,
    batch_size: int,
    picture: Picture | None = None,
) -> Float[Tensor, "context layer d_model"]:
    """The states at the last token of a prompt continued by each context.

    Contexts that begin another are read on its way, and the prompt is marked as shared by all rows, so that an
    adapter which keeps keys and values runs it once.

    Args:
        adapter: any backend.
        asked: the token ids of the prompt, template included.
        contexts: tokens that follow it, at least one context, each once; the empty one is the prompt itself.
        layers: which layers, ascending.
        batch_size: how many continuations run at once; the states do not depend on it beyond rounding.
        picture: what the prompt shows.

    Returns:
        In the order of ``contexts``, the adapter's dtype, on the CPU.
    """
    place = {context: i for i, context in enumerate(contexts)}
    found: dict[int, Tensor] = {}
    for rows in _rows(contexts, batch_size):
        states = adapter.states(_batch(asked, rows, picture), layers)
        for row, tokens in enumerate(rows):
            for k in range(len(tokens) + 1):
                if tokens[:k] in place:
                    found[place[tokens[:k]]] = states[row, :, k]
    return torch.stack([found[i] for i in range(len(contexts))])


def _rows(contexts: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[tuple[int, ...]]]:
    """The contexts that begin no other, by length, so that a batch holds little padding."""
    ascending = sorted(contexts)
    # What begins with a context follows it at once in ascending order.
    ends = [a for a, b in zip(ascending, [*ascending[1:], ()], strict=True) if b[: len(a)] != a or not b]
    ends.sort(key=lambda c: (len(c), c))
    for start in range(0, len(ends), batch_size):
        yield ends[start : start + batch_size]


def _batch(asked: Sequence[int], rows: Sequence[tuple[int, ...]], picture: Picture | None) -> Batch:
    """The prompt with each continuation, padded on the right; read from the prompt's last token to the row's last."""
    last, width = len(asked) - 1, max(map(len, rows))
    ids, mask = right_padded([(*asked, *tokens) for tokens in rows])
    lengths = torch.tensor([len(tokens) for tokens in rows])[:, None]
    # Rows that end earlier are read at their last token again: a position may not lie in padding.
    at = last + torch.arange(width + 1).minimum(lengths)
    if picture is not None:
        return Batch(ids, mask, at, pictures=(picture,) * len(rows))
    return Batch(ids, mask, at, shared=last)
