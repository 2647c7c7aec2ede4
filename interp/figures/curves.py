"""Curves over layers, each with its interval as a band."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import QUALITATIVE, literal, styled

HARMFUL, HARMLESS = "#b2182b", "#2166ac"
GROUP_COLOURS = {"harmful": HARMFUL, "harmless": HARMLESS}
DASHES = ("solid", "dot", "dash", "dashdot")
PANELS_ACROSS = 3


def layer_curves(layers: pd.DataFrame, *, locators: list[str], unit: str, band: bool = True) -> go.Figure:
    """Curves over layers with their intervals as bands: one colour per group, one dash per locator."""
    figure = go.Figure()
    dashes = dict(zip(locators, DASHES, strict=False))
    chosen = layers[layers["locator"].isin(locators)]
    for (locator, group), rows in chosen.groupby(["locator", "group"], sort=False):
        if group not in GROUP_COLOURS and chosen["group"].nunique() > 1:
            continue  # differences have a figure of their own
        rows = rows.sort_values("layer")
        colour = GROUP_COLOURS.get(str(group), "#555555")
        name = f"{locator}, {literal(group)} (n = {int(rows['n'].iloc[0])})"
        if band:
            figure.add_trace(_band(rows, colour, str(name)))
        figure.add_trace(_curve(rows, colour, str(name), dash=dashes[str(locator)]))
    return styled(figure, x="layer", y=unit, height=420)


def profiles(layers: pd.DataFrame, *, unit: str) -> go.Figure:
    """One curve over layers per group of a layer table, each with its interval as a band.

    Beyond as many groups as there are colours, the colours come again with another dash.
    """
    figure = go.Figure()
    for number, (group, rows) in enumerate(layers.groupby("group", sort=False)):
        rows = rows.sort_values("layer")
        again, place = divmod(number, len(QUALITATIVE))
        colour, dash = QUALITATIVE[place], DASHES[again % len(DASHES)]
        name = f"{literal(group)} (n = {int(rows['n'].iloc[0])})"
        figure.add_trace(_band(rows, colour, name))
        figure.add_trace(_curve(rows, colour, name, dash=dash))
    return styled(figure, x="layer", y=unit, height=460)


def paired_curves(curves: pd.DataFrame, *, unit: str) -> go.Figure:
    """The same curves of two studies over each other, one panel per position and group.

    Args:
        curves: columns study (two names), position, group, layer, value, lo, hi, n, and apart: whether the intervals
            of the two studies do not overlap at this layer; such layers carry a marker.
        unit: of the values.
    """
    panels = list(dict.fromkeys(zip(curves["position"], curves["group"], strict=True)))
    across = min(PANELS_ACROSS, len(panels))
    down = -(-len(panels) // across)
    titles = [f"{literal(position)}, {literal(group)}" for position, group in panels]
    figure = make_subplots(
        rows=down, cols=across, subplot_titles=titles, shared_yaxes=True, shared_xaxes=True, vertical_spacing=0.3 / down
    )
    colours = dict(zip(dict.fromkeys(curves["study"]), QUALITATIVE, strict=False))
    legend = set()
    for (study, position, group), rows in curves.groupby(["study", "position", "group"], sort=False):
        place = panels.index((position, group))
        where = {"row": place // across + 1, "col": place % across + 1}
        rows, name = rows.sort_values("layer"), literal(study)
        figure.add_trace(_band(rows, colours[study], name), **where)
        line = _curve(rows, colours[study], name)
        line.update(
            mode="lines+markers",
            marker={"size": np.where(rows["apart"], 7, 0), "color": colours[study]},
            showlegend=study not in legend,
        )
        legend.add(study)
        figure.add_trace(line, **where)
    styled(figure, x="", y="", height=120 + 260 * down)
    figure.update_layout(legend_y=-75 / (260 * down))
    figure.update_xaxes(showticklabels=True)
    figure.update_xaxes(title_text="layer", row=down)
    figure.update_yaxes(title_text=unit, col=1)
    return figure


def _curve(rows: pd.DataFrame, colour: str, name: str, *, dash: str = "solid") -> go.Scatter:
    return go.Scatter(
        x=rows["layer"],
        y=rows["value"],
        name=name,
        legendgroup=name,
        mode="lines",
        line={"color": colour, "dash": dash},
        customdata=rows[["lo", "hi"]].to_numpy(),
        hovertemplate="layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
    )


def _band(rows: pd.DataFrame, colour: str, group: str) -> go.Scatter:
    return go.Scatter(
        x=[*rows["layer"], *rows["layer"][::-1]],
        y=[*rows["hi"], *rows["lo"][::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )
