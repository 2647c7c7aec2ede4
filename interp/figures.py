"""Plotly figures from tidy tables. Nothing is shown or written here; a notebook displays what it gets."""

import html
import unicodedata

import numpy as np
import pandas as pd
import plotly.graph_objects as go

QUALITATIVE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
DIVERGING = "RdBu_r"
HARMFUL, HARMLESS = "#b2182b", "#2166ac"
GROUP_COLOURS = {"harmful": HARMFUL, "harmless": HARMLESS}
FONT = {"family": "system-ui, sans-serif", "size": 13}


def position_heatmap(
    layers: pd.DataFrame, *, locator: str, group: str, positions: dict[str, str], unit: str
) -> go.Figure:
    """Layer by position; a dot marks a cell whose interval contains 0.

    Args:
        layers: the tidy ``layers`` table.
        locator: which locator's values.
        group: which group's values.
        positions: the columns in order, first token first, each with the token that stands there ("" if it varies).
        unit: of the value, for the colour bar.
    """
    chosen = layers[(layers["locator"] == locator) & (layers["group"] == group)]
    columns = ("value", "lo", "hi")
    grid = {c: chosen.pivot(index="layer", columns="position", values=c)[list(positions)] for c in columns}
    n = int(chosen["n"].max())
    z, lo, hi = (grid[c].to_numpy() for c in ("value", "lo", "hi"))
    unclear = (lo <= 0) & (hi >= 0)
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=[f"{name}<br>{literal(token)}" for name, token in positions.items()],
            y=grid["value"].index,
            zmid=0,
            colorscale=DIVERGING,
            colorbar={"title": {"text": unit, "side": "right"}},
            text=np.where(unclear, "·", ""),
            texttemplate="%{text}",
            customdata=np.stack([lo, hi], -1),
            hovertemplate="layer %{y}, %{x}: %{z:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
            f"<br>n = {n}<extra></extra>",
        )
    )
    return _styled(figure, x="position", y="layer", height=620)


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
    return _styled(figure, x="prompts, each label sorted by the last layer", y="layer", height=560)


def layer_curves(layers: pd.DataFrame, *, locators: list[str], unit: str, band: bool = True) -> go.Figure:
    """Curves over layers with their intervals as bands: one colour per group, one dash per locator."""
    figure = go.Figure()
    dashes = dict(zip(locators, ("solid", "dot", "dash", "dashdot"), strict=False))
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
    return _styled(figure, x="layer", y=unit, height=420)


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
    _styled(figure, x=column, y=row, height=150 + 30 * len(rows))
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(automargin=True)
    return figure


def profiles(layers: pd.DataFrame, *, unit: str) -> go.Figure:
    """One curve over layers per group of a layer table, each with its interval as a band."""
    figure = go.Figure()
    for number, (group, rows) in enumerate(layers.groupby("group", sort=False)):
        rows = rows.sort_values("layer")
        colour = QUALITATIVE[number % len(QUALITATIVE)]
        name = f"{literal(group)} (n = {int(rows['n'].iloc[0])})"
        figure.add_trace(_band(rows, colour, name))
        figure.add_trace(_curve(rows, colour, name))
    return _styled(figure, x="layer", y=unit, height=460)


def literal(text: object, width: int | None = None) -> str:
    """Text as it reads, for a figure: markup, formulas and invisible characters are shown and not obeyed.

    Args:
        text: any value.
        width: break lines about here with ``<br>``.
    """
    shown = "".join(c if _printable(c) else f"\\u{ord(c):04x}" for c in str(text))
    lines = [shown] if width is None else [shown[i : i + width] for i in range(0, len(shown), width)]
    # The last replacement keeps formula renderers away, should the page ever load one.
    return "<br>".join(html.escape(line).replace("$", "&#36;") for line in lines)


def _printable(character: str) -> bool:
    """False for control, format (bidi, zero-width) and unassigned characters."""
    return not unicodedata.category(character).startswith("C")


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


def _styled(figure: go.Figure, *, x: str, y: str, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        xaxis_title=x,
        yaxis_title=y,
        legend={"orientation": "h", "y": -0.2},
    )
    return figure
