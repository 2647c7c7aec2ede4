"""Where something was found against where it is known to be, one panel per method."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import QUALITATIVE, literal, styled

ACROSS = 4


def placements(found: pd.DataFrame, *, panel: str, kind: str, layers: tuple[int, int], near: int) -> go.Figure:
    """The layer that was found, with its interval, against the layer that is true.

    Args:
        found: columns ``panel``, ``kind``, layer (the truth), onset, lo, hi (missing: never), case.
        panel: the column that names the panels, such as locator.
        kind: the column whose values get a colour each.
        layers: the first and the last layer there are.
        near: how far from the truth counts as found; a grey band.
    """
    panels = list(dict.fromkeys(found[panel]))
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[literal(p) for p in panels],
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.28 / down,
        horizontal_spacing=0.03,
    )
    never = layers[1] + max(2, (layers[1] - layers[0]) // 8)
    shown = set()
    for (name, group), rows in found.groupby([panel, kind], sort=False):
        place = panels.index(name)
        where = {"row": place // across + 1, "col": place % across + 1}
        colour = QUALITATIVE[list(dict.fromkeys(found[kind])).index(group) % len(QUALITATIVE)]
        points = _points(rows, str(group), colour, never)
        points.update(showlegend=group not in shown)
        shown.add(group)
        figure.add_trace(points, **where)
    for place in range(len(panels)):
        where = {"row": place // across + 1, "col": place % across + 1}
        figure.add_trace(_band(layers, near), **where)
    styled(figure, x="", y="", height=110 + 200 * down)
    figure.update_layout(legend_y=-70 / (200 * down))
    ticks = list(range(layers[0], layers[1] + 1, max(1, (layers[1] - layers[0]) // 5)))
    figure.update_xaxes(range=[layers[0] - 1, layers[1] + 1], tickvals=ticks)
    figure.update_xaxes(title_text="planted at layer", row=down)
    figure.update_yaxes(
        range=[layers[0] - 1, never + 1], tickvals=[*ticks, never], ticktext=[*map(str, ticks), "never"]
    )
    figure.update_yaxes(title_text="found at layer", col=1)
    return figure


def _points(rows: pd.DataFrame, name: str, colour: str, never: int) -> go.Scatter:
    onset, lo, hi = (rows[c].fillna(never).to_numpy(dtype=float) for c in ("onset", "lo", "hi"))
    return go.Scatter(
        x=rows["layer"],
        y=onset,
        name=literal(name),
        legendgroup=name,
        mode="markers",
        marker={"color": colour, "size": 6},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.maximum(hi - onset, 0),
            "arrayminus": np.maximum(onset - lo, 0),
            "thickness": 1,
            "width": 0,
        },
        customdata=[[literal(c)] for c in rows["case"]],
        hovertemplate="%{customdata[0]}: planted at %{x}, found at %{y}<extra></extra>",
    )


def _band(layers: tuple[int, int], near: int) -> go.Scatter:
    first, last = layers
    return go.Scatter(
        x=[first, last, last, first],
        y=[first - near, last - near, last + near, first + near],
        fill="toself",
        fillcolor="rgba(0,0,0,0.13)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
