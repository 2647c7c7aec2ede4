"""Shares with their intervals, side by side."""

import pandas as pd
import plotly.graph_objects as go

from interp.figures.curves import GROUP_COLOURS
from interp.figures.style import QUALITATIVE, literal, styled


def rates(table: pd.DataFrame, *, row: str, kind: str, unit: str) -> go.Figure:
    """A point with its interval for every row and kind.

    Args:
        table: the columns named by ``row`` and ``kind``, and value, lo, hi (shares, 0 to 1) and n. Rows keep their
            order of first appearance, top first.
        row: the column of row names.
        kind: the column whose values get a colour each, such as prompts (harmful, harmless).
        unit: of the shares, for the axis.
    """
    figure = go.Figure()
    kinds = list(dict.fromkeys(table[kind]))
    for number, name in enumerate(kinds):
        own = table[table[kind] == name]
        figure.add_trace(
            go.Scatter(
                x=own["value"],
                y=[literal(r) for r in own[row]],
                name=literal(name),
                mode="markers",
                marker={"size": 10, "color": GROUP_COLOURS.get(name, QUALITATIVE[number % len(QUALITATIVE)])},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": own["hi"] - own["value"],
                    "arrayminus": own["value"] - own["lo"],
                    "thickness": 2,
                },
                customdata=own[["lo", "hi", "n"]].to_numpy(dtype=float),
                hovertemplate="%{y}: %{x:.0%} [%{customdata[0]:.0%}, %{customdata[1]:.0%}], n = %{customdata[2]:.0f}",
            )
        )
    rows = list(dict.fromkeys(table[row]))
    styled(figure, x=unit, y="", height=150 + 34 * len(rows))
    figure.update_layout(scattermode="group", scattergap=0.5, legend_y=-0.35)
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=[literal(r) for r in rows[::-1]], automargin=True
    )
    return figure
