"""Numbers with their intervals, a row each: what is no curve over layers and no grid."""

import pandas as pd
import plotly.graph_objects as go

from interp.figures.curves import GROUP_COLOURS
from interp.figures.style import QUALITATIVE, literal, styled


def interval_points(
    table: pd.DataFrame, *, rows: str, unit: str, colours: str | None = None, shares: bool = False
) -> go.Figure:
    """A dot with its 95 % interval per row; a line marks 0.

    Args:
        table: the column named by ``rows``, and value, lo, hi, n; rows keep their order of first appearance.
        rows: the column that names the rows.
        unit: of the values.
        colours: a column that tells the dots of a row apart, such as prompts (harmful, harmless); None for one dot.
        shares: whether the values are shares, 0 to 1, and are written as percentages.
    """
    figure, number_format = go.Figure(), ".0%" if shares else ".3f"
    low, high = (f"%{{customdata[{i}]:{number_format}}}" for i in (0, 1))
    groups = [("", table)] if colours is None else list(table.groupby(colours, sort=False))
    for number, (group, own) in enumerate(groups):
        figure.add_trace(
            go.Scatter(
                x=own["value"],
                y=[literal(name) for name in own[rows]],
                name=literal(group),
                mode="markers",
                orientation="h",  # groups stand apart across their rows; along them, values would be moved
                marker={"size": 10, "color": GROUP_COLOURS.get(str(group), QUALITATIVE[number % len(QUALITATIVE)])},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": own["hi"] - own["value"],
                    "arrayminus": own["value"] - own["lo"],
                    "thickness": 2,
                },
                customdata=own[["lo", "hi", "n"]].to_numpy(dtype=float),
                hovertemplate=f"%{{y}}: %{{x:{number_format}}} [{low}, {high}], n = %{{customdata[2]:.0f}}",
            )
        )
    names = list(dict.fromkeys(literal(name) for name in table[rows]))
    styled(figure, x=unit, y="", height=150 + 34 * len(names))
    figure.update_layout(showlegend=colours is not None, scattermode="group", scattergap=0.5, legend_y=-0.35)
    figure.update_xaxes(zeroline=True, zerolinecolor="#888888")
    if shares:
        figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1], automargin=True)
    return figure
