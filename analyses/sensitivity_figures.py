"""The figures of the sensitivity report."""

from typing import Any

import pandas as pd

from analyses.sensitivity_tables import LENS, PROBE
from interp import figures

DRAWN_FROM = {
    "detector_heatmap": ("detectors",),
    "profiles": ("layers",),
    "lens_profiles": ("layers",),
    "transfer_heatmap": ("transfer",),
    "profile_correlation_heatmap": ("profile_correlations",),
}


def all_figures(
    detectors: pd.DataFrame, profiles: pd.DataFrame, crossed: pd.DataFrame, correlations: pd.DataFrame
) -> dict[str, tuple[Any, str]]:
    """Every figure by name with its caption, in reading order."""
    return {
        "detector_heatmap": (
            figures.matrix(_cells(detectors), row="detector", column="model", unit="hits - false alarms"),
            "Who detects whose refusals: share of refused prompts on which a detector fires, minus the share of "
            "prompts complied with. Every cell shows hits / false alarms; a model that refuses nothing has "
            "false alarms only. White: fires on both alike, or on neither. Hover for AUROC, layer and intervals.",
        ),
        "profiles": (
            figures.profiles(profiles[profiles["locator"] == PROBE], unit="AUROC of refused against complied"),
            "The same layers whatever the words? Held-out AUROC of each model's probe by layer, with intervals.",
        ),
        "lens_profiles": (
            figures.profiles(profiles[profiles["locator"] == LENS], unit="AUROC of refused against complied"),
            "The same for the first-token lens that watches for openings of an apology.",
        ),
        "transfer_heatmap": (
            figures.matrix(_transfer(crossed), row="trained", column="tested", unit="AUROC", middle=0.5),
            "Trained on one model (row), tested on another (column), on prompts of other categories. Rows at the "
            "bottom are trained on all models whose kind of refusal is another. Hover for intervals and layers.",
        ),
        "profile_correlation_heatmap": (
            figures.matrix(_square(correlations), row="first", column="second", unit="Spearman's rho"),
            "Rank correlation of the layer profiles of every two models' probes.",
        ),
    }


def _cells(detectors: pd.DataFrame) -> pd.DataFrame:
    hits, alarms = detectors["hits"], detectors["false_alarms"]
    value = hits.fillna(0) - alarms.fillna(0)
    text = [f"{_percent(h)} / {_percent(a)}" for h, a in zip(hits, alarms, strict=True)]
    hover = [
        f"{r.verdict}<br>AUROC {r.auroc:.3f} [{r.auroc_lo:.3f}, {r.auroc_hi:.3f}]"
        f"<br>hits {r.hits:.0%} [{r.hits_lo:.0%}, {r.hits_hi:.0%}], n = {r.hits_n}"
        f"<br>false alarms {r.false_alarms:.0%} [{r.false_alarms_lo:.0%}, {r.false_alarms_hi:.0%}], "
        f"n = {r.false_alarms_n}<br>layer {r.layer:.0f} [{r.layer_lo:.0f}, {r.layer_hi:.0f}]"
        for r in detectors.itertuples()
    ]
    return detectors[["detector", "model"]].assign(value=value, text=text, hover=hover)


def _transfer(crossed: pd.DataFrame) -> pd.DataFrame:
    hover = [
        f"AUROC {r.auroc:.3f} [{r.lo:.3f}, {r.hi:.3f}], n = {r.n}<br>hits {r.hits:.0%}, "
        f"false alarms {r.false_alarms:.0%}<br>layers {r.layers}"
        for r in crossed.itertuples()
    ]
    text = [
        f"{v:.2f}" if v == v else _percent(a) + " fired"
        for v, a in zip(crossed["auroc"], crossed["false_alarms"], strict=True)
    ]
    return crossed[["trained", "tested"]].assign(value=crossed["auroc"], text=text, hover=hover)


def _square(correlations: pd.DataFrame) -> pd.DataFrame:
    """Both halves of the matrix, and its diagonal."""
    turned = correlations.rename(columns={"first": "second", "second": "first"})
    names = list(dict.fromkeys([*correlations["first"], *correlations["second"]]))
    diagonal = pd.DataFrame({"first": names, "second": names, "rho": 1.0, "lo": 1.0, "hi": 1.0})
    whole = pd.concat([diagonal, correlations, turned], ignore_index=True)
    text = [f"{v:.2f}" for v in whole["rho"]]
    hover = [f"{r.rho:.3f} [{r.lo:.3f}, {r.hi:.3f}]" for r in whole.itertuples()]
    return whole[["first", "second"]].assign(value=whole["rho"], text=text, hover=hover)


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.0%}"
