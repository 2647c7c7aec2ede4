"""The difference of means, a direction per layer (Arditi et al. 2024, arXiv 2406.11717).

r_l = mean of the states of harmful prompts - mean of those of harmless ones, at one position of layer l (their
section 2.3). They have no curve: of all layers and positions they keep the direction whose ablation lowers refusal
most, after three filters (`select`). The curve here is how well r_l separates prompts it was not fitted to: Cohen's d
along it, the gap between the held-out means in pooled standard deviations within kinds, averaged over random halves
of the groups.

Range: any real number; 0 where nothing separates, and then below it by chance as often as above; unlike an AUROC it
has no ceiling at which early and late layers look alike.

Where it fails: prompts that differ in length, form or topic separate from the first layers on, and a mean difference
takes that for refusal; one direction misses what is spread over several; and what separates need not be used.

Departures: they fit and judge on a train and a validation split, both filtered by a first-token refusal score; here
groups are split in halves and nothing is filtered. Means are in float64, as theirs are. Their layer number k is the
input of block k, counted from 0, which is layer k here.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.held_out import held_out_curve
from interp.axes import States
from interp.errors import UsageError

SPLITS = 5
NEEDED = ("layer", "position", "ablated_refusal", "kl", "steering")


def mean_difference(states: States, layers: tuple[int, ...], contrast: Contrast, *, splits: int = SPLITS) -> Curve:
    """Held-out Cohen's d along the difference of means.

    Args:
        states: residual states at any position.
        layers: their layer numbers.
        contrast: the two kinds, each of at least two groups.
        splits: random halvings of the groups, which are averaged.

    Returns:
        A curve with null 0, and the mean of each kind alone, 0 midway between the means fitted; resamples fit again.

    Raises:
        UsageError: when a kind has prompts of one group only.
        NonFinite: for a state that is NaN or infinite.
    """
    unit = "held-out Cohen's d"
    return held_out_curve("mean_difference", states, layers, contrast, _products, splits=splits, unit=unit)


def _products(
    layer: Float[Tensor, "row d_model"],
    trained: Bool[ndarray, " row"],
    first: Bool[ndarray, " row"],  # noqa: ARG001 - a plain inner product needs no kinds
) -> Float[ndarray, "row trained"]:
    return (layer @ layer[torch.from_numpy(trained)].T).numpy()


def directions(states: States, contrast: Contrast) -> Float[Tensor, "layer d_model"]:
    """The mean of the first kind minus that of the other at every layer, float64, in the unit of the states.

    0 at a layer whose states do not differ beyond rounding.
    """
    first = torch.from_numpy(contrast.first)
    return torch.stack([layer[first].mean(0) - layer[~first].mean(0) for layer in contrast.by_layer(states)])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which direction is kept.

    Attributes:
        chosen: the row of the table; None when every candidate is dropped.
        dropped: the other rows that fail a filter, with a column ``reason``.
    """

    chosen: dict[str, Any] | None
    dropped: pd.DataFrame


def select(
    candidates: pd.DataFrame,
    *,
    depth: float = 0.8,
    max_kl: float = 0.1,
    min_steering: float = 0.0,
    blocks: int | None = None,
) -> Selection:
    """The candidate whose ablation leaves the least refusal, among those that pass the published filters.

    A candidate is dropped when a number is NaN, when its layer is at or above ``int(depth * blocks)``, when ablating
    it on harmless prompts moves the output by more than ``max_kl``, or when adding it on harmless prompts leaves the
    refusal score below ``min_steering`` (their appendix C and released code).

    Args:
        candidates: columns layer, position, ablated_refusal (mean log-odds of refusal on harmful prompts under
            ablation), kl (nats, harmless prompts under ablation) and steering (mean log-odds of refusal on harmless
            prompts with the direction added).
        depth: share of the blocks.
        max_kl: nats.
        min_steering: log-odds.
        blocks: of the model; by default the largest layer of the table, where a cache of all layers ends.

    Returns:
        The choice, the first of equals, and why every other candidate was dropped.

    Raises:
        UsageError: for a missing column.
    """
    missing = [c for c in NEEDED if c not in candidates]
    if missing:
        raise UsageError(f"the table of candidates lacks {', '.join(missing)}; it needs {', '.join(NEEDED)}.")
    if blocks is None:
        blocks = int(candidates["layer"].max()) if len(candidates) else 0
    rows = candidates.to_dict("records")
    reasons = np.array([_reason(row, depth, blocks, max_kl, min_steering) for row in rows], dtype=str)
    passed = candidates[reasons == ""]
    chosen = passed.sort_values("ablated_refusal", kind="stable").head(1).to_dict("records")
    dropped = candidates[reasons != ""].assign(reason=reasons[reasons != ""])
    return Selection({str(k): v for k, v in chosen[0].items()} if chosen else None, dropped)


def _reason(row: Mapping[Hashable, Any], depth: float, blocks: int, max_kl: float, min_steering: float) -> str:
    """Every filter that a candidate fails, in words; empty when it passes."""
    top = int(depth * blocks)
    failed = [f"{c} is NaN" for c in NEEDED[2:] if np.isnan(row[c])]
    if row["layer"] >= top:
        failed.append(f"layer {row['layer']} is not below {top}, {depth:.0%} of {blocks} blocks")
    if row["kl"] > max_kl:
        failed.append(f"KL {row['kl']:.3g} is above {max_kl}")
    if row["steering"] < min_steering:
        failed.append(f"steering {row['steering']:.3g} is below {min_steering}")
    return "; ".join(failed)
