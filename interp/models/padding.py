"""Texts side by side in one batch: who runs with whom, and padding on either side."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models.pictures import Picture


def in_batches(
    lengths: Sequence[int], pictures: Sequence[Picture | None], batch_size: int
) -> Iterator[tuple[int, ...]]:
    """Cuts texts into batches: sorted by length, so that there is little padding, those with pictures by themselves.

    Args:
        lengths: in tokens.
        pictures: what each text shows.
        batch_size: most texts of a batch.

    Returns:
        Indices of the texts, each in one batch; equal lengths stay in order.
    """
    for seeing in (False, True):
        chosen = [i for i, picture in enumerate(pictures) if (picture is not None) == seeing]
        chosen.sort(key=lambda i: lengths[i])
        for start in range(0, len(chosen), batch_size):
            yield tuple(chosen[start : start + batch_size])


def left_padded(
    rows: Sequence[Sequence[int]], *, pad: int
) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Token ids padded on the left, as generation needs them, and their mask."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids, mask


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Token ids padded on the right, where nothing that a causal model computes can see it, and their mask."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = 1
    return ids, mask
