"""What every figure shares: colours, fonts, and text that is shown and not obeyed."""

import html
import unicodedata

import plotly.graph_objects as go

QUALITATIVE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
DIVERGING = "RdBu_r"
FONT = {"family": "system-ui, sans-serif", "size": 13}


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


def styled(figure: go.Figure, *, x: str, y: str, height: int) -> go.Figure:
    """The figure with titled axes, a height in pixels and the look of the house."""
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
