"""From which layer on the kinds part at every position of the template, without a word list: states and probes."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy import ndarray

from analyses.locators.contrast import Contrast
from analyses.locators.mean_difference import mean_difference
from analyses.panel import probe_curve
from analyses.sample import DIFFERENCE, Sample
from interp.cache import ActivationCache
from interp.study import LAYERS_COLUMNS
from probes.splits import by_group
from probes.sweep import enough_of_both

FOLDS = 5
REFUSED = "refused - complied"


def position_table(
    cache: ActivationCache,
    sample: Sample,
    refused: Bool[ndarray, " prompt"],
    counted: Bool[ndarray, " prompt"],
) -> pd.DataFrame:
    """Mean difference and probe at every position of a cache, in the columns of a layer table.

    Args:
        cache: states at some positions.
        sample: of its prompts.
        refused: what the model did.
        counted: which prompts it refused or complied with; the others tell a probe nothing.

    Returns:
        ``mean_difference`` (Cohen's d along directions of the other half of the groups, of one halving) of harmful
        against harmless prompts, and ``probe`` (AUROC on folds left out) of refused against complied with; the latter
        only where there are enough of both.
    """
    contrast = Contrast.of(sample)
    own, rows = sample.only(counted), torch.from_numpy(np.flatnonzero(counted))
    both = enough_of_both(refused[counted])
    folds = by_group(own.groups, FOLDS, seed=sample.seed) if both else None
    parts = []
    for position in cache.positions:
        states = cache.residuals(position=position)
        curves = [mean_difference(states, cache.layers, contrast, splits=1)]
        if folds is not None:
            probed = probe_curve(states[rows], cache.layers, refused[counted], folds, own.groups, sample.seed)
            curves += [] if probed is None else [probed]
        parts += [curve.table(family="none", position=position) for curve in curves]
    return pd.concat(parts, ignore_index=True)[list(LAYERS_COLUMNS)]


def contrasts(table: pd.DataFrame, locator: str) -> pd.DataFrame:
    """The rows of a heatmap of one locator by position: those of its contrast."""
    return table[(table["locator"] == locator) & table["group"].isin((DIFFERENCE, REFUSED))]
