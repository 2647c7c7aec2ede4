"""Numbers with their intervals, a row each: what is no curve over layers and no grid."""

import pandas as pd
import plotly.graph_objects as go

from interp.figures.style import QUALITATIVE, literal, styled


def interval_points(table: pd.DataFrame, *, rows: str, unit: str, colours: str | None = None) -> go.Figure:
    """A dot with its 95 % interval per row, the value of no effect marked by a line at 0.

    Args:
        table: the column named by ``rows``, and value, lo, hi, n; rows keep their order of first appearance.
        rows: the column that names the rows.
        unit: of the values.
        colours: a column that tells the dots of a row apart; None for one dot per row.
    """
    figure = go.Figure()
    groups = [("", table)] if colours is None else list(table.groupby(colours, sort=False))
    for number, (group, own) in enumerate(groups):
        figure.add_trace(
            go.Scatter(
                x=own["value"],
                y=[literal(name) for name in own[rows]],
                name=literal(group),
                mode="markers",
                marker={"size": 10, "color": QUALITATIVE[number % len(QUALITATIVE)]},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": own["hi"] - own["value"],
                    "arrayminus": own["value"] - own["lo"],
                },
                customdata=own[["lo", "hi", "n"]].to_numpy(),
                hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]:.0f}",
            )
        )
    names = list(dict.fromkeys(literal(name) for name in table[rows]))
    styled(figure, x=unit, y="", height=150 + 34 * len(names))
    figure.update_layout(showlegend=colours is not None, scattermode="group")
    figure.update_xaxes(zeroline=True, zerolinecolor="#888888")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1], automargin=True)
    return figure
