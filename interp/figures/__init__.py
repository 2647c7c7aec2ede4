"""Plotly figures from tidy tables. Nothing is shown or written here; a notebook displays what it gets."""

from interp.figures.curves import layer_curves, paired_curves, profiles
from interp.figures.heatmaps import HOW_TO_READ, ONSETS, OWN_PEAK, layer_heatmap, position_heatmap
from interp.figures.matrices import matrix, prompt_heatmap
from interp.figures.placements import placements
from interp.figures.points import interval_points
from interp.figures.style import literal

__all__ = [
    "HOW_TO_READ",
    "ONSETS",
    "OWN_PEAK",
    "interval_points",
    "layer_curves",
    "layer_heatmap",
    "literal",
    "matrix",
    "paired_curves",
    "placements",
    "position_heatmap",
    "profiles",
    "prompt_heatmap",
]
