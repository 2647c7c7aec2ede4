import numpy as np
import pandas as pd

from interp import figures
from interp.study import LAYERS_COLUMNS

LAYERS, POSITIONS = range(4), {"t_inst": "", "post_0": "<|im_end|>", "t_post": "\n"}


def layers_table():
    rows = []
    for layer in LAYERS:
        for i, position in enumerate(POSITIONS):
            value = layer * 10 + i
            rows.append(("signal", "apology", position, "harmful - harmless", layer, value, value - 5, value + 5, 12))
        rows += [("rule", "apology", "t_post", g, layer, layer / 4, 0.0, 1.0, 6) for g in ("harmful", "harmless")]
    return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))


def test_position_heatmap_shows_the_table_and_marks_what_is_unclear():
    table = layers_table().sample(frac=1, random_state=0)
    figure = figures.position_heatmap(
        table, locator="signal", group="harmful - harmless", positions=POSITIONS, unit="nats"
    )
    heat = figure.data[0]
    assert np.array_equal(heat.z, [[layer * 10 + i for i in range(3)] for layer in LAYERS])
    assert list(heat.y) == list(LAYERS)
    assert heat.x[1] == "post_0<br>&lt;|im_end|&gt;" and heat.x[2] == "t_post<br>\\u000a"
    assert [list(row) for row in heat.text] == [["·"] * 3] + [[""] * 3] * 3
    assert heat.zmid == 0
    assert np.array_equal(heat.customdata[2, 1], [16, 26])


def test_prompt_heatmap_sorts_each_label_by_the_last_layer():
    values = {"a": ("harmful", 1.0), "b": ("harmless", 9.0), "c": ("harmful", -1.0), "d": ("harmless", 2.0)}
    rows = [(p, f"text {p}", label, layer, v + layer) for p, (label, v) in values.items() for layer in LAYERS]
    figure = figures.prompt_heatmap(
        pd.DataFrame(rows, columns=["prompt", "text", "label", "layer", "value"]), unit="nats"
    )
    heat = figure.data[0]
    assert [hover.split(" ")[0] for hover in heat.customdata[0]] == ["d", "b", "c", "a"]
    assert np.array_equal(heat.z[0], [2, 9, -1, 1])
    assert {a.text for a in figure.layout.annotations} == {"harmless (2)", "harmful (2)"}


def test_curves_carry_their_intervals_and_n():
    figure = figures.layer_curves(layers_table(), locators=["rule"], unit="share")
    lines = [t for t in figure.data if t.mode == "lines"]
    assert {t.name for t in lines} == {"rule, harmful (n = 6)", "rule, harmless (n = 6)"}
    assert all(np.array_equal(t.customdata, [[0.0, 1.0]] * 4) for t in lines)
    assert len(figure.data) == 4, "each curve has a band"


def test_user_text_is_shown_and_not_obeyed():
    nasty = "<b>x</b> </script> $\\href{javascript:1}{y}$ \u202egnp \x1b[2J\x00"
    shown = figures.literal(nasty)
    assert "<" not in shown and "$" not in shown
    assert "\\u202e" in shown and "\\u001b" in shown and "\\u0000" in shown
    assert figures.literal("ab" * 50, 90).count("<br>") == 1
