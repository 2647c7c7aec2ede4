"""Running one planned batch: padded on the right, split only when memory runs out."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.axes import BatchStates
from interp.errors import ModelError
from interp.models.adapter import Adapter, Batch
from interp.models.encoding import Encoded

# Only some allocators raise OutOfMemoryError; torch reports the others (CPU, MPS, cuBLAS) as RuntimeError, in words.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def make_batch(encoded: Sequence[Encoded], shared: int) -> Batch:
    """Token ids padded on the right, and where states are read."""
    width = max(len(e.ids) for e in encoded)
    ids = torch.zeros(len(encoded), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, e in enumerate(encoded):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = 1
    at = torch.tensor([list(e.at.values()) for e in encoded])
    means = {list(encoded[0].at).index(p): _filled([e.means[p] for e in encoded]) for p in encoded[0].means}
    pictures = tuple(e.picture for e in encoded)
    return Batch(ids, mask, at, shared, means, pictures if any(pictures) else ())


def _filled(rows: Sequence[Sequence[int]]) -> Int[Tensor, "row _"]:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def batch_states(
    adapter: Adapter, batch: Batch, layers: Sequence[int], *, strict: bool = False
) -> tuple[BatchStates, int]:
    """The states of a batch, and the rows that ran at once: halved as long as memory runs out.

    Raises:
        ModelError: when a single row does not fit, or with ``strict`` when the whole batch does not.
    """
    rows = len(batch.ids)
    size = rows
    while True:
        try:
            parts = [
                adapter.states(batch.of_rows(slice(start, start + size)), layers) for start in range(0, rows, size)
            ]
            return torch.cat(parts), size
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if strict or size == 1:
                raise ModelError(
                    f"out of memory with {size} prompts of {batch.ids.shape[1]} tokens at once: "
                    "lower --token-budget, or use a smaller dtype or a larger device."
                ) from error
            size = (size + 1) // 2


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error).lower() for words in OUT_OF_MEMORY)
