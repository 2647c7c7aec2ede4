"""Something by layer as a heatmap in which no cell hides how uncertain it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.errors import UsageError
from interp.figures.style import DIVERGING, literal, styled

MISSING = "#e3e3e3"
"""Behind the cells: what shows where nothing was measured."""
FADE = [[0, "rgba(255,255,255,0)"], [1, "rgba(255,255,255,0.88)"]]
HOW_TO_READ = (
    "Colour is the value; the paler a cell, the wider its 95 % interval beside its value, and a dot marks a cell "
    "whose interval holds the value of no effect. Grey: not measured."
)
OWN_PEAK = "Rows of different units are shares of their own peak, which stands beside the name."
ONSETS = "A diamond with its bar is the onset with its 95 % interval; at the right edge it means never."


@dataclass(frozen=True, slots=True)
class Cells:
    """The rows of a heatmap.

    Attributes:
        rows: their names, top first.
        layers: layer numbers, ascending.
        value: in the unit of the row; NaN where there is none, as in the others.
        lo: lower end of the 95 % interval.
        hi: upper end.
        n: how many prompts.
        null: (row, 1) the value of no effect.
    """

    rows: list[str]
    layers: list[int]
    value: Float[ndarray, "row layer"]
    lo: Float[ndarray, "row layer"]
    hi: Float[ndarray, "row layer"]
    n: Float[ndarray, "row layer"]
    null: Float[ndarray, "row 1"]

    @property
    def unclear(self) -> Bool[ndarray, "row layer"]:
        """Whether the interval holds the value of no effect; true where it is unknown though there is a value."""
        return np.asarray(~np.isnan(self.value) & ~((self.lo > self.null) | (self.hi < self.null)))

    @property
    def peak(self) -> Float[ndarray, " row"]:
        """The largest distance from no effect in every row, in its unit; NaN for a row without values."""
        far = np.abs(self.value - self.null)
        return np.where(np.isnan(far).all(1), np.nan, np.nan_to_num(far).max(1))

    @property
    def doubt(self) -> Float[ndarray, "row layer"]:
        """Half the interval as a share of the distance from no effect; 1 at most, and wherever a cell is unclear."""
        far, half = np.abs(self.value - self.null), (self.hi - self.lo) / 2
        share = np.divide(half, far, out=np.ones_like(far), where=far > 0)
        share = np.where(self.unclear, 1.0, np.clip(share, 0, 1))
        return np.where(np.isnan(self.value), np.nan, share)


def layer_heatmap(
    table: pd.DataFrame,
    *,
    rows: str,
    unit: str | Mapping[str, str],
    null: float | Mapping[str, float] = 0.0,
    onsets: pd.DataFrame | None = None,
    labels: Mapping[str, str] | None = None,
) -> go.Figure:
    """A row per locator, family, position or whatever else, a column per layer, and the uncertainty of every cell.

    `HOW_TO_READ` says in a caption what is seen. Rows of more than one unit, or of more than one value of no effect,
    are shown as shares of their own peak (`OWN_PEAK`); the unit and the peak then stand beside the name.

    Args:
        table: rows of a ``layers`` table, one per row of the heatmap and layer; values may be NaN.
        rows: the column that names the rows, such as ``locator``; they keep their order of first appearance.
        unit: of the values, or of every row's by its name.
        null: the value of no effect, which is white, or every row's by its name; 0.5 for AUROC.
        onsets: columns ``rows``, onset, lo, hi in layers, drawn over the rows (`ONSETS`); inf or missing is never.
        labels: what stands beside a row instead of its name; may hold ``<br>``, so user text must be `literal`.

    Raises:
        UsageError: when a cell occurs twice, or there is none.
    """
    cells = _cells(table, rows, null)
    units = [unit if isinstance(unit, str) else unit[row] for row in cells.rows]
    own_peak = len({*zip(units, cells.null[:, 0].tolist(), strict=True)}) > 1
    names = [(labels or {}).get(row) or literal(row) for row in cells.rows]
    if own_peak:
        names = [_with_peak(*row) for row in zip(names, cells.peak, units, strict=True)]
    figure = go.Figure([_colours(cells, names, units, own_peak), _fade(cells, names)])
    if onsets is not None:
        figure.add_traces(_onsets(onsets, rows, dict(zip(cells.rows, names, strict=True)), cells.layers))
    styled(figure, x="layer", y="" if labels else rows, height=max(270, 130 + (46 if own_peak else 34) * len(names)))
    figure.update_layout(plot_bgcolor=MISSING, showlegend=False)
    # Markers would widen the axis beyond the cells.
    figure.update_xaxes(showgrid=False, zeroline=False, range=[cells.layers[0] - 0.5, cells.layers[-1] + 0.5])
    figure.update_yaxes(type="category", autorange="reversed", automargin=True, showgrid=False)
    return figure


def position_heatmap(
    layers: pd.DataFrame, *, locator: str, group: str, positions: Mapping[str, str], unit: str, null: float = 0.0
) -> go.Figure:
    """One locator's values of one group, position by layer; see `layer_heatmap`.

    Args:
        layers: the tidy ``layers`` table.
        locator: which locator's values.
        group: which group's values.
        positions: the rows in order, first token first, each with the token that stands there ("" if it varies).
        unit: of the value, for the colour bar.
        null: the value of no effect.
    """
    chosen = layers[(layers["locator"] == locator) & (layers["group"] == group)]
    ordered = pd.concat([chosen[chosen["position"] == position] for position in positions])
    labels = {name: f"{literal(name)}  {literal(token)}".rstrip() for name, token in positions.items()}
    return layer_heatmap(ordered, rows="position", unit=unit, null=null, labels=labels)


def _cells(table: pd.DataFrame, rows: str, null: float | Mapping[str, float]) -> Cells:
    if table.empty:
        raise UsageError(f"no row to draw by {rows}; choose a locator and group that the table holds.")
    twice = table[table.duplicated([rows, "layer"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        vary = [c for c in table.columns.difference(["value", "lo", "hi", "n"]) if twice[c].nunique() > 1]
        raise UsageError(
            f"{rows} {first[rows]!r} has more than one value at layer {first['layer']}; keep one of each "
            f"{', '.join(c for c in vary if c not in (rows, 'layer')) or 'row'}."
        )
    names = list(dict.fromkeys(table[rows]))
    grids = {c: table.pivot(index=rows, columns="layer", values=c).loc[names] for c in ("value", "lo", "hi", "n")}
    nulls = [[float(null if isinstance(null, int | float) else null[name])] for name in names]
    arrays = {c: grid.to_numpy(dtype="float64", na_value=np.nan) for c, grid in grids.items()}
    return Cells(
        [str(name) for name in names], [int(i) for i in grids["value"].columns], **arrays, null=np.array(nulls)
    )


def _with_peak(name: str, peak: float, unit: str) -> str:
    said = f"peak {peak:.3g} {literal(unit)}" if np.isfinite(peak) else f"no value, {literal(unit)}"
    return f"{name}<br><span style='font-size:11px'>{said}</span>"


def _colours(cells: Cells, names: list[str], units: list[str], own_peak: bool) -> go.Heatmap:
    z, middle = cells.value, float(cells.null[0, 0])
    if own_peak:
        far = cells.value - cells.null
        z, middle = np.divide(far, cells.peak[:, None], out=np.zeros_like(far), where=cells.peak[:, None] != 0), 0.0
    reach = 1.0 if own_peak else float(np.nan_to_num(cells.peak).max()) or 1.0
    title = "share of row's peak" if own_peak else literal(units[0])
    shown = [[literal(unit)] * len(cells.layers) for unit in units]
    numbers = np.stack([cells.value, cells.lo, cells.hi, cells.n], -1).astype(object)
    return go.Heatmap(
        z=z,
        x=cells.layers,
        y=names,
        zmin=middle - reach,
        zmax=middle + reach,
        zmid=middle,
        colorscale=DIVERGING,
        colorbar={"title": {"text": title, "side": "right"}},
        hoverongaps=False,
        customdata=np.concatenate([numbers, np.array(shown, dtype=object)[..., None]], -1),
        hovertemplate="%{y}, layer %{x}<br>%{customdata[0]:.3g} [%{customdata[1]:.3g}, %{customdata[2]:.3g}] "
        "%{customdata[4]}<br>n = %{customdata[3]:.0f}<extra></extra>",
    )


def _fade(cells: Cells, names: list[str]) -> go.Heatmap:
    """White over every cell, thicker where more is in doubt, and the dots."""
    return go.Heatmap(
        z=cells.doubt,
        x=cells.layers,
        y=names,
        zmin=0,
        zmax=1,
        colorscale=FADE,
        showscale=False,
        hoverinfo="skip",
        hoverongaps=False,
        text=np.where(cells.unclear, "·", ""),
        texttemplate="%{text}",
        textfont={"color": "black", "size": 16},
    )


def _onsets(onsets: pd.DataFrame, rows: str, names: dict[str, str], layers: list[int]) -> list[go.Scatter]:
    """A bar and a diamond per row; never stands at the right edge."""
    edge = layers[-1] + 0.5
    traces = []
    for row in onsets[onsets[rows].astype(str).isin(names)].to_dict("records"):
        ends = [float("inf") if pd.isna(row[k]) else float(row[k]) for k in ("onset", "lo", "hi")]
        onset, lo, hi = (min(end, edge) for end in ends)
        said = ["never" if end == float("inf") else f"{end:.0f}" for end in ends]
        # A white line below the black one keeps the bar visible on dark cells.
        for width, colour in ((6, "white"), (3, "black")):
            traces.append(
                go.Scatter(
                    x=[lo, onset, hi],
                    y=[names[str(row[rows])]] * 3,
                    mode="lines+markers",
                    line={"color": colour, "width": width},
                    marker={
                        "symbol": ["line-ns", "diamond", "line-ns"],
                        "size": [8, 11, 8],
                        "color": "black",
                        "line": {"color": ["black", "white", "black"], "width": [2, 1.5, 2]},
                    },
                    hovertemplate=f"onset {said[0]} [{said[1]}, {said[2]}]<extra></extra>",
                    cliponaxis=False,
                )
            )
    return traces
