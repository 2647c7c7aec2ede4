"""What a pair's alignment is held against: how alike caption and picture are to one who reads or sees them well.

A cosine of one space says nothing beside one of another. So references are floor-corrected as states are, and compared
as ``attained``: matched minus shuffled, as a share of what lies above shuffled (`interp.geometry.alignment`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analyses.cross_modal.diagnostics import MAIN, layers_table
from interp.geometry import Alignment, Arms, alignment
from interp.geometry.arms import FOLDS

Encode = Callable[[Sequence[str]], Float[Tensor, "text d"]]
"""Such as `interp.models.text_encoder.TextEncoder.encode`."""
STATES = "own description"


@dataclass(frozen=True)
class Reference:
    """A reference line.

    Attributes:
        name: such as ``demo:minilm``.
        what: what is compared in it, in words.
        alignment: of one layer where it has no layers of its own.
        variant: of the alignment.
    """

    name: str
    what: str
    alignment: Alignment
    variant: str

    def attained(self, layers: Sequence[int]) -> tuple[Float[ndarray, " layer"], Float[ndarray, "resample layer"]]:
        """The value and its resamples at these layers, the same at all for a line without layers."""
        profile = self.alignment.attained
        assert_drawn = profile.drawn
        if assert_drawn is None:
            raise ValueError(f"{self.name}: a reference needs resamples")
        if len(profile.layers) == 1:
            at = np.zeros(len(layers), dtype=int)
        else:
            at = np.array([profile.layers.index(layer) for layer in layers])
        return profile.value[at], assert_drawn[:, at]

    def layers_table(self, layers: Sequence[int], place: str) -> pd.DataFrame:
        """Its rows of a ``layers`` table, repeated over layers where it has none of its own."""
        rows = self.alignment.frame()
        if len(self.alignment.attained.layers) == 1:
            rows = rows.drop(columns="layer").merge(pd.DataFrame({"layer": list(layers)}), how="cross")
        return layers_table(rows, position=place, group=f"reference: {self.name}")


def encoder_reference(
    name: str,
    descriptions: Sequence[str],
    captions: Sequence[str],
    concepts: tuple[str, ...],
    encode: Encode,
    *,
    seed: int = 0,
) -> Reference:
    """A text encoder on the captions and on what the model says it sees.

    Args:
        name: of the encoder.
        descriptions: of every picture, in the model's own words.
        captions: of every picture.
        concepts: of every pair.
        encode: gives one vector per text.
        seed: of folds and bootstrap; with that of the states, resamples are the same.
    """
    return vector_reference(
        name, "own description against caption, by a text encoder", encode(descriptions), encode(captions), concepts,
        seed=seed,
    )  # fmt: skip


def vector_reference(
    name: str,
    what: str,
    first: Float[Tensor, "pair d"],
    second: Float[Tensor, "pair d"],
    concepts: tuple[str, ...],
    *,
    seed: int = 0,
) -> Reference:
    """Any two vectors per pair of one space, such as those of picture and caption by CLIP, as a reference line."""
    arms = Arms(first[:, None].float(), second[:, None].float(), concepts, (0,))
    return Reference(name, what, _aligned(arms, seed), MAIN)


def described_reference(arms: Arms, *, seed: int = 0) -> Reference:
    """The model's own descriptions, read where the caption stands, against the captions: its own states, by layer."""
    return Reference(
        STATES, "own description against caption, both read as text by the model", _aligned(arms, seed), MAIN
    )


def _aligned(arms: Arms, seed: int) -> Alignment:
    return alignment(arms, MAIN, folds=min(FOLDS, len(arms.names) // 2), seed=seed)
