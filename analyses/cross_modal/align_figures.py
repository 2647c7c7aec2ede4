"""The figures of an align study: one heatmap per diagnostic, and the curves that show what a raw cosine hides."""

from typing import Any

import pandas as pd

from analyses.cross_modal.diagnostics import MAIN
from analyses.cross_modal.separation import MEASURE
from interp import figures
from interp.figures import HOW_TO_READ

Figures = dict[str, tuple[Any, str]]
COSINES = (
    "cosine",
    "cosine of other concepts",
    "cosine of unrelated images",
    "cosine of unrelated captions",
    "excess",
)
DIAGNOSTICS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "excess_heatmap": (
        ("excess",),
        "cosine",
        "Alignment excess: cosine with the own caption minus cosine with the captions of other concepts.",
    ),
    "cka_heatmap": (("CKA",), "CKA", "Debiased CKA of pictures and captions, a point per concept; 0 for no relation."),
    "subspace_heatmap": (
        ("subspace excess",),
        "overlap",
        "Overlap of the leading subspaces of pictures and of their captions, minus that with the captions of other "
        "concepts.",
    ),
    "gap_heatmap": (
        ("modality gap",),
        "spreads",
        "Distance between the centroids of both arms, in root mean square distances of a concept from its centroid.",
    ),
    "retrieval_heatmap": (
        ("top-1 above chance", "MRR above chance"),
        "above chance",
        "How often a picture's own caption ranks first, and the mean of 1 / rank, each minus chance.",
    ),
}


def cosine_curves(layers: pd.DataFrame, place: str) -> Figures:
    """Raw cosines beside the centred excess at one place."""
    chosen = layers[(layers["position"] == place) & (layers["group"] == "all pairs")]
    raw = chosen[(chosen["family"] == "raw") & chosen["locator"].isin(COSINES[:4])]
    honest = chosen[(chosen["family"] == MAIN) & (chosen["locator"] == "excess")]
    table = pd.concat([raw.assign(group="raw " + raw["locator"]), honest.assign(group=f"{MAIN} excess")])
    return {
        f"cosines_{place}": (
            figures.profiles(table, unit="cosine"),
            f"What a raw cosine hides, at {place}: of pictures with their own captions, with those of other concepts, "
            f"and of unrelated pictures or captions with each other; and the excess of the first two once each arm's "
            "mean is taken off. Raw curves that lie together say nothing, however high.",
        )
    }


def reference_curves(layers: pd.DataFrame, place: str) -> Figures:
    """What pictures attain, beside the references."""
    chosen = layers[(layers["position"] == place) & (layers["locator"] == "attained") & (layers["family"] == MAIN)]
    table = chosen.assign(group=chosen["group"].replace({"all pairs": "pictures"}))
    return {
        f"reference_{place}": (
            figures.profiles(table, unit="alignment attained (0 chance, 1 the same)"),
            f"Alignment that pictures' states attain with their captions at {place}, beside that of the references; "
            "every line is corrected by its own floor.",
        )
    }


def diagnostic_heatmaps(layers: pd.DataFrame) -> Figures:
    """One heatmap per diagnostic: a row per place and variant."""
    chosen = layers[layers["group"] == "all pairs"]
    above = chosen[chosen["locator"].isin(["top-1", "MRR"])]
    above = above.assign(
        locator=above["locator"] + " above chance",
        **{name: above[name] - above["floor"] for name in ("value", "lo", "hi")},
    )
    chosen = pd.concat([chosen, above], ignore_index=True)
    drawn: Figures = {}
    for name, (measures, unit, caption) in DIAGNOSTICS.items():
        table = chosen[chosen["locator"].isin(measures)]
        what = table["position"] + ", " + table["family"]
        what = what if len(measures) == 1 else table["position"] + ", " + table["locator"].str.split().str[0]
        drawn[name] = (
            figures.layer_heatmap(table.assign(what=what), rows="what", unit=unit),
            f"{caption} {HOW_TO_READ}",
        )
    return drawn


def map_heatmap(table: pd.DataFrame, place: str) -> Figures:
    """Image layer by caption layer."""
    renamed = table.rename(columns={"caption_layer": "layer"}).assign(row=table["image_layer"].astype(str))
    figure = figures.layer_heatmap(renamed, rows="row", unit="cosine")
    figure.update_xaxes(title_text="layer of the caption's state")
    figure.update_yaxes(title_text="layer of the picture's state")
    figure.update_layout(height=max(300, 130 + 16 * table["image_layer"].nunique()))
    return {
        f"map_heatmap_{place}": (
            figure,
            f"Alignment excess at {place} between pictures at one layer and captions at another, {MAIN}: states of a "
            f"picture may be like those of text at another layer. {HOW_TO_READ}",
        )
    }


def separation_heatmaps(layers: pd.DataFrame) -> Figures:
    """How far each arm tells scenes apart along the direction of text, and how far pictures lie from captions there."""
    how = (
        "The direction is that between the means of scenes and harmless pairs in the text arm, fitted without the "
        "concept it is tried on; the unit is the distance of those means."
    )
    captions = {
        "separation_heatmap": (
            MEASURE,
            f"How far scenes lie from harmless pairs along the direction of the text arm. {how}",
        ),
        "drift_heatmap": (
            "drift along refusal",
            "How far pictures lie from their own captions along that direction; below 0 towards harmless. What any "
            f"picture does is in it. {how}",
        ),
    }
    drawn: Figures = {}
    for name, (measure, caption) in captions.items():
        table = layers[layers["locator"] == measure]
        table = table.assign(what=table["position"] + ", " + table["group"])
        figure = figures.layer_heatmap(table, rows="what", unit="distances in text")
        drawn[name] = (figure, f"{caption} {HOW_TO_READ}")
    return drawn
