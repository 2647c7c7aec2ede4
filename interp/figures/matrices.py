"""Grids whose cells are no layers of a locator: a labelled matrix, and every prompt by layer."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.figures.style import DIVERGING, literal, styled


def matrix(cells: pd.DataFrame, *, row: str, column: str, unit: str, middle: float = 0.0) -> go.Figure:
    """A labelled matrix: a colour and a short text per cell, more on hover.

    Args:
        cells: the columns named by ``row`` and ``column``, and value, text, hover (which may hold ``<br>``); pairs
            that do not occur stay empty. Rows and columns keep their order of first appearance.
        row: the column of row names.
        column: the column of column names.
        unit: of the value, for the colour bar.
        middle: the value that is white; the colours reach 1 on one side and as far on the other.
    """
    rows, columns = list(dict.fromkeys(cells[row])), list(dict.fromkeys(cells[column]))
    grids = {k: cells.pivot(index=row, columns=column, values=k).loc[rows, columns] for k in ("value", "text", "hover")}
    figure = go.Figure(
        go.Heatmap(
            z=grids["value"].to_numpy(dtype=float),
            x=[literal(c) for c in columns],
            y=[literal(r) for r in rows],
            zmin=2 * middle - 1,
            zmax=1,
            zmid=middle,
            colorscale=DIVERGING,
            colorbar={"title": {"text": unit, "side": "right"}},
            text=grids["text"].fillna("").to_numpy(),
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=grids["hover"].fillna("").to_numpy(),
            hovertemplate="%{y} / %{x}<br>%{customdata}<extra></extra>",
        )
    )
    styled(figure, x=column, y=row, height=150 + 30 * len(rows))
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(automargin=True)
    return figure


def prompt_heatmap(prompts: pd.DataFrame, *, unit: str) -> go.Figure:
    """Layer by prompt, harmless left and harmful right, each sorted by the last layer's value.

    Args:
        prompts: columns prompt, text, label, layer, value; one row per prompt and layer.
        unit: of the value, for the colour bar.
    """
    grid = prompts.pivot(index="layer", columns="prompt", values="value")
    known = prompts.drop_duplicates("prompt").set_index("prompt")
    rank = pd.DataFrame({"label": known["label"].map({"harmless": 0, "harmful": 1}), "last": grid.iloc[-1]})
    order = rank.sort_values(["label", "last"], na_position="first", kind="stable").index
    hover = [f"{literal(p)} ({literal(known['label'][p])})<br>{literal(known['text'][p], 90)}" for p in order]
    z = grid[order].to_numpy()
    span = float(np.quantile(np.abs(z), 0.95))  # the embedding layer's extremes would bleach all others
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(len(order))),
            y=grid.index,
            zmid=0,
            zmin=-span,
            zmax=span,
            colorscale=DIVERGING,
            colorbar={"title": {"text": unit, "side": "right"}},
            customdata=np.tile(np.array(hover, dtype=object), (len(z), 1)),
            hovertemplate="layer %{y}: %{z:.2f}<br>%{customdata}<extra></extra>",
        )
    )
    labels = known.loc[order, "label"].tolist()
    for label in dict.fromkeys(labels):
        first, count = labels.index(label), labels.count(label)
        figure.add_annotation(
            x=first + count / 2, y=1.04, yref="paper", text=f"{literal(label)} ({count})", showarrow=False
        )
        if first:
            figure.add_vline(x=first - 0.5, line_color="black", line_width=1)
    figure.update_xaxes(showticklabels=False)
    return styled(figure, x="prompts, each label sorted by the last layer", y="layer", height=560)
