"""The tables of a scan."""

from typing import Any

import numpy as np
import pandas as pd

from analyses.locators.firing import Firing
from analyses.readings import Readings
from analyses.sample import DIFFERENCE, Sample
from interp.prompts import PromptSet
from interp.stats import wilson
from interp.study import LAYERS_COLUMNS

OPENING = "opening_logodds"


def layers_table(read: Readings, sample: Sample, family: str) -> pd.DataFrame:
    """One row per locator, position, group and layer: value with its 95 % interval and n.

    ``opening_logodds``, ``entropy`` and ``kl_to_final`` are means in nats; ``tga_paper`` and ``tga_released`` are
    shares of prompts on which the rule has fired by the layer. Group is a label, or "harmful - harmless".
    """
    curves = [(OPENING, position, values) for position, values in read.openings.items()]
    curves.append(("entropy", "t_post", read.lens.entropy.double().numpy()))
    curves.append(("kl_to_final", "t_post", read.lens.kl_to_final.double().numpy()))
    rows: list[tuple[Any, ...]] = []
    for locator, position, values in curves:
        rows += mean_rows((locator, family, position), read.layers, values, sample)
    for rule in read.rules:
        rows += _share_rows((rule.locator, family, "t_post"), rule, sample)
    return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))


def mean_rows(key: tuple[str, ...], layers: tuple[int, ...], values: Any, sample: Sample) -> list[tuple[Any, ...]]:
    """Rows of a layer table: the mean of each kind of prompt by layer, and of the first minus the other.

    Args:
        key: locator, family and position.
        layers: layer numbers.
        values: (prompt, layer).
        sample: the prompts.
    """
    rows: list[tuple[Any, ...]] = []
    for kind in sample.kinds:
        curve, n = sample.mean(values, kind)
        rows += [(*key, kind, *cell, n) for cell in zip(layers, *curve, strict=True)]
    return rows + _difference_rows(key, layers, values, sample)


def _share_rows(key: tuple[str, ...], rule: Firing, sample: Sample) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for kind in sample.kinds:
        fired = rule.fired_by[sample.labels == kind]
        shares = [wilson(int(count), len(fired)) for count in fired.sum(0)]
        rows += [(*key, kind, layer, s.value, s.lo, s.hi, s.n) for layer, s in zip(rule.layers, shares, strict=True)]
    return rows + _difference_rows(key, rule.layers, rule.fired_by.astype(np.float64), sample)


def _difference_rows(
    key: tuple[str, ...], layers: tuple[int, ...], values: Any, sample: Sample
) -> list[tuple[Any, ...]]:
    if not sample.contrasted:
        return []
    curve, n = sample.difference(values)
    return [(*key, DIFFERENCE, *cell, n) for cell in zip(layers, *curve, strict=True)]


def prompt_table(read: Readings, prompts: PromptSet, sample: Sample) -> pd.DataFrame:
    """One row per prompt and layer: the log-odds, in nats, that the lens at t_post opens a refusal."""
    wide = pd.DataFrame(read.openings["t_post"], columns=list(read.layers))
    known = prompts.frame()[["id", "text", "category"]].rename(columns={"id": "prompt"}).assign(label=sample.labels)
    return pd.concat([known, wide], axis=1).melt(id_vars=list(known), var_name="layer", value_name="value")


def onset_table(read: Readings, prompts: PromptSet, sample: Sample) -> pd.DataFrame:
    """One row per rule and prompt: the layer at which it fires first; missing where it never does (censored)."""
    parts = []
    for rule in read.rules:
        fired = np.isfinite(rule.onset)
        onset = pd.Series(np.where(fired, rule.onset, 0)).astype("Int64").mask(~fired)
        part = pd.DataFrame({"prompt": [p.id for p in prompts], "label": sample.labels, "onset": onset})
        parts.append(part.assign(locator=rule.locator, censored=~fired))
    return pd.concat(parts, ignore_index=True)
