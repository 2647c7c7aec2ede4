"""Picture states at every layer against caption states at every layer.

States of a picture may be like those of text at another layer, so the diagonal alone can invent misalignment.
"""

import numpy as np
import pandas as pd
import torch

from interp.geometry.arms import FOLDS, Arms
from interp.geometry.variants import Comparison
from interp.pair_stats import pair_mean
from interp.stats import percentile_interval, weighted_mean

RESAMPLES = 400


def layer_map(
    arms: Arms, variant: str = "centred", *, folds: int = FOLDS, seed: int = 0, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """The alignment excess of image states at one layer over caption states at another.

    On the diagonal it is that of `interp.geometry.alignment.alignment`.

    Args:
        arms: the pairs.
        variant: one of `interp.geometry.variants.VARIANTS`; whitening has another metric at every layer, so its map
            compares spaces that are not the same.
        folds: as of `alignment`.
        seed: of folds and bootstrap.
        resamples: of the bootstrap.

    Returns:
        Columns image_layer, caption_layer, value, lo, hi, floor (the shuffled cosine), n.

    Raises:
        UsageError: as `alignment`.
    """
    how = Comparison.of(arms, variant, folds=folds, seed=seed)
    weights = np.concatenate([np.ones((1, len(arms.names))), arms.weights(seed=seed, resamples=resamples)])
    both = [how.directions(arms, i) for i in range(len(arms.layers))]
    captions = torch.stack([caption for _, caption in both])
    means = torch.stack([arms.by_concept(caption) for caption in captions])
    rows = []
    for (image, _), layer in zip(both, arms.layers, strict=True):
        own = arms.by_concept((image * captions).sum(-1).T)
        matched = weighted_mean(own.numpy(), weights)
        shuffled = pair_mean((arms.by_concept(image) @ means.mT).numpy(), weights, how.rivals).T
        excess = matched - shuffled
        cells = zip(arms.layers, excess[0], *percentile_interval(excess[1:]), shuffled[0], strict=True)
        rows += [(layer, *cell, len(arms.names)) for cell in cells]
    columns = ["image_layer", "caption_layer", "value", "lo", "hi", "floor", "n"]
    return pd.DataFrame(rows, columns=columns)
