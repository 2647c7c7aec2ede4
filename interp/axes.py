"""Axis names and the layer-numbering law.

Layer 0 is the output of the embedding (the input of block 1); layer i is the residual stream after block i, so a
model of L blocks has L + 1 layers. Layer L is the residual stream *before* the final norm, unlike the last entry of
``output_hidden_states``, which is behind it.

Axes are named the same everywhere, in shapes, table columns and figure titles: prompt, row (a prompt inside a batch or
shard), layer, position, token, d_model, vocab.
"""

from jaxtyping import Float, Int
from torch import Tensor

States = Float[Tensor, "prompt layer d_model"]
"""Residual states of every prompt at one position, in the order of the prompt set."""

BatchStates = Float[Tensor, "row layer position d_model"]
"""Residual states of one batch at the positions asked for."""

TokenIds = Int[Tensor, " token"]
"""Vocabulary ids."""
