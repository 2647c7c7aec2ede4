"""The figures of the tribunal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.family_profiles import difference
from analyses.panel import TUNED
from analyses.position_profiles import contrasts
from analyses.tribunal import Witness
from interp import figures
from interp.figures import HOW_TO_READ, ONSETS, OWN_PEAK

Tables = Mapping[str, pd.DataFrame]
DRAWN_FROM = {
    "locator_heatmap": ("locator_layers", "verdicts"),
    "causal_heatmap": ("causal_layers",),
    "trial_rates": ("trial",),
    "family_heatmap": ("family_layers", "family_onsets"),
    "family_calibration": ("family_layers",),
    "position_states_heatmap": ("position_layers",),
    "position_probe_heatmap": ("position_layers",),
    "tuned_calibration": ("tuned_calibration",),
}


def all_figures(tables: Tables, found: Sequence[Witness], positions: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Every figure whose table is there, by name with its caption, in reading order.

    Args:
        tables: of the tribunal.
        found: the witnesses, for units and values of no effect.
        positions: by position, first token first, the token that stands there ("" if it varies).
    """
    drawn = {"locator_heatmap": _locators(tables, found)}
    if "causal_layers" in tables:
        drawn["causal_heatmap"] = _causal(tables["causal_layers"])
    if "trial" in tables:
        drawn["trial_rates"] = _trial(tables["trial"])
    if "family_layers" in tables:
        drawn |= _families(tables)
    drawn |= _positions(tables["position_layers"], positions)
    if "tuned_calibration" in tables:
        drawn["tuned_calibration"] = (
            figures.layer_curves(
                tables["tuned_calibration"], locators=[f"entropy{TUNED}", f"kl_to_final{TUNED}"], unit="nats"
            ),
            "The same of the tuned lens at t_post, the second readout: entropy, and divergence from the final layer. "
            "Where its divergence is small and the logit lens's large, believe the tuned one.",
        )
    return drawn


def _locators(tables: Tables, found: Sequence[Witness]) -> tuple[Any, str]:
    layers, verdicts = tables["locator_layers"], tables["verdicts"]
    named = {t.curve.locator: t.curve for t in found}
    chosen = pd.concat(
        [layers[(layers["locator"] == n) & (layers["group"] == c.contrast)] for n, c in named.items()],
        ignore_index=True,
    )
    onsets = pd.DataFrame({"locator": verdicts["locator"]} | {
        new: verdicts[old] for new, old in (("onset", "onset"), ("lo", "onset_lo"), ("hi", "onset_hi"))
    })  # fmt: skip
    return (
        figures.layer_heatmap(
            chosen,
            rows="locator",
            unit={n: c.unit for n, c in named.items()},
            null={n: c.null for n, c in named.items()},
            onsets=onsets,
        ),
        f"How far every locator sets the two kinds of prompts apart, by layer. {HOW_TO_READ} {OWN_PEAK} {ONSETS}",
    )


def _causal(table: pd.DataFrame) -> tuple[Any, str]:
    table = table.assign(patched=table["position"] + ": " + table["locator"].str.removeprefix("causal_patch "))
    return (
        figures.layer_heatmap(table, rows="patched", unit="nats"),
        "How much patching moves the log-odds of the model's own refusals, by layer: with the states of the other "
        f"prompt of a twin, and with those of a stranger of the same kind (placebo). {HOW_TO_READ}",
    )


def _trial(table: pd.DataFrame) -> tuple[Any, str]:
    refused = table[table["metric"] == "refused"]
    beside = refused["placebo"].map(lambda p: f", placebo: {p}" if p else "")
    what = refused["intervention"].map({"none": "the model as it is"}).fillna("direction " + refused["intervention"])
    return (
        figures.interval_points(
            refused.assign(what=what + beside), rows="what", unit="answers that refuse", colours="prompts", shares=True
        ),
        "What the direction does to the answers to twins it was not fitted on. Taken out, refusals of harmful prompts "
        "should go (necessity); put in, harmless prompts should be refused (sufficiency); placebos of equal size "
        "should do neither. Bars are 95 % intervals.",
    )


def _families(tables: Tables) -> dict[str, tuple[Any, str]]:
    table = tables["family_layers"]
    return {
        "family_heatmap": (
            figures.layer_heatmap(difference(table), rows="family", unit="nats", onsets=tables["family_onsets"]),
            "Which refusals a layer makes likely: log-likelihood of whole openings of every family in the states from "
            "which the model would say them, through a lens tuned for these states, harmful minus harmless prompts. "
            f"{HOW_TO_READ} {ONSETS}",
        ),
        "family_calibration": (
            figures.layer_curves(
                table, locators=["kl_to_final", f"kl_to_final{TUNED}"], unit="KL from the final layer (nats)"
            ),
            "Can these readings be believed? Divergence from the final layer at places inside openings, of the logit "
            "lens and of the lens used. Where it is many nats, a likelihood of that layer says little.",
        ),
    }


def _positions(table: pd.DataFrame, positions: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    known = (
        ("mean_difference", "position_states_heatmap", "held-out Cohen's d", 0.0, "How far the states of harmful and "
         "harmless prompts lie apart along their difference of means, fitted on other groups,"),
        ("probe", "position_probe_heatmap", "AUROC", 0.5, "How well probes tell refused from complied with, on prompts "
         "left out,"),
    )  # fmt: skip
    drawn = {}
    for locator, name, unit, null, what in known:
        rows = contrasts(table, locator)
        if len(rows):
            drawn[name] = (
                figures.position_heatmap(
                    rows, locator=locator, group=str(rows["group"].iloc[0]), positions=positions, unit=unit, null=null
                ),
                f"{what} by position and layer. {HOW_TO_READ}",
            )
    return drawn
