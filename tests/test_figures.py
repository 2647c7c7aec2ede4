import numpy as np
import pandas as pd
import pytest

from interp import figures
from interp.errors import UsageError
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
    heat, fade = figure.data
    assert np.array_equal(heat.z, [[layer * 10 + i for layer in LAYERS] for i in range(3)])
    assert list(heat.x) == list(LAYERS)
    assert list(heat.y) == ["t_inst", "post_0  &lt;|im_end|&gt;", "t_post  \\u000a"]
    assert [list(row) for row in fade.text] == [["·", "", "", ""]] * 3
    assert heat.zmid == 0 and -heat.zmin == heat.zmax == 32
    assert heat.customdata[1, 2].tolist() == [21, 16, 26, 12, "nats"]


def rows_of(values, half=1.0, rows="locator", n=7):
    """A layers table with a row per name, ``half`` being half of every interval."""
    found = []
    for name, row in values.items():
        for layer, value in enumerate(row):
            known = dict.fromkeys(("locator", "family", "position", "group"), "x") | {rows: name}
            found.append({**known, "layer": layer, "value": value, "lo": value - half, "hi": value + half, "n": n})
    return pd.DataFrame(found)


@pytest.mark.parametrize("rows", ["locator", "family", "position", "group"])
def test_every_cell_shows_its_uncertainty(rows):
    figure = figures.layer_heatmap(rows_of({"b": [0.5, 2, -4], "a": [1, 10, 100]}, rows=rows), rows=rows, unit="nats")
    heat, fade = figure.data
    assert list(heat.y) == ["b", "a"], "rows keep their order"
    assert np.array_equal(heat.z, [[0.5, 2, -4], [1, 10, 100]])
    assert np.allclose(fade.z, [[1, 0.5, 0.25], [1, 0.1, 0.01]]), "half the interval over the distance from 0"
    assert fade.text.tolist() == [["·", "", ""], ["·", "", ""]]
    assert heat.customdata[0, 2].tolist() == [-4, -5, -3, 7, "nats"]
    for shown in ("customdata[1]", "customdata[2]", "n = "):
        assert shown in heat.hovertemplate


def test_rows_of_different_units_are_shares_of_their_own_peak_and_say_so():
    table = rows_of({"odds": [0.0, 6.0, -12.0], "auroc": [0.5, 0.9, 0.4]}, half=0.05)
    figure = figures.layer_heatmap(
        table, rows="locator", unit={"odds": "nats", "auroc": "AUROC"}, null={"odds": 0.0, "auroc": 0.5}
    )
    heat, fade = figure.data
    assert np.allclose(heat.z, [[0, 0.5, -1], [0, 1, -0.25]])
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert "peak 12 nats" in heat.y[0] and "peak 0.4 AUROC" in heat.y[1]
    assert heat.customdata[1, 1].tolist() == [0.9, 0.9 - 0.05, 0.9 + 0.05, 7, "AUROC"], "hover keeps the unit"
    assert fade.text.tolist() == [["·", "", ""], ["·", "", ""]], "each against its own value of no effect"


def test_one_unit_is_shown_in_that_unit():
    figure = figures.layer_heatmap(rows_of({"a": [0.5, 0.75]}, half=0.1), rows="locator", unit="AUROC", null=0.5)
    assert np.allclose(figure.data[0].z, [[0.5, 0.75]])
    assert (figure.data[0].zmin, figure.data[0].zmid, figure.data[0].zmax) == (0.25, 0.5, 0.75)
    assert "peak" not in figure.data[0].y[0]


def test_what_was_not_measured_is_a_gap_and_an_unknown_interval_is_in_doubt():
    table = rows_of({"none": [np.nan] * 3, "flat": [0.0] * 3, "short": [2.0, 3.0]}, half=0.1)
    table.loc[table["locator"] == "short", ["lo", "hi"]] = np.nan
    for unit in ("nats", {"none": "a", "flat": "b", "short": "c"}):
        heat, fade = figures.layer_heatmap(table, rows="locator", unit=unit).data
        assert np.isnan(heat.z[0]).all() and np.isnan(fade.z[0]).all() and set(fade.text[0]) == {""}
        assert np.isnan(heat.z[2][2]) and fade.text[2].tolist() == ["·", "·", ""]
        assert fade.z[2][:2].tolist() == [1, 1] and fade.z[1].tolist() == [1, 1, 1]
    assert "no value" in heat.y[0] and set(heat.z[1]) == {0}


def test_onsets_are_drawn_over_their_rows():
    onsets = pd.DataFrame(
        {
            "locator": ["a", "b", "c", "elsewhere"],
            "onset": [2.0, np.inf, 1.0, 1.0],
            "lo": [1.0, 3.0, 1.0, 1.0],
            "hi": [2.0, np.inf, np.nan, 1.0],
        }
    )
    table = rows_of({"a": [1.0] * 4, "b": [1.0] * 4, "c": [1.0] * 4})
    drawn = figures.layer_heatmap(table, rows="locator", unit="nats", onsets=onsets).data[2:]
    bars = {t.y[0]: t for t in drawn if t.line.color == "black"}
    assert set(bars) == {"a", "b", "c"}
    assert bars["a"].x == (1.0, 2.0, 2.0) and bars["b"].x == (3.0, 3.5, 3.5) and bars["c"].x == (1.0, 1.0, 3.5)
    assert "onset 2 [1, 2]" in bars["a"].hovertemplate and "onset never [3, never]" in bars["b"].hovertemplate


def test_one_layer_and_names_with_markup():
    nasty = "<b>x</b>$\\alpha$\u202e"
    table = rows_of({nasty: [3.0]})
    onsets = pd.DataFrame({"locator": [nasty], "onset": [0.0], "lo": [0.0], "hi": [0.0]})
    figure = figures.layer_heatmap(table, rows="locator", unit="<i>nats</i>", onsets=onsets)
    assert figure.data[0].z.tolist() == [[3.0]] and list(figure.layout.xaxis.range) == [-0.5, 0.5]
    assert figure.data[0].y[0] == figures.literal(nasty)
    assert "<i>" not in str(figure.data[0].customdata)
    assert figure.data[2].y[0] == figure.data[0].y[0]


def test_two_values_for_one_cell_are_refused_by_what_differs():
    table = pd.concat([rows_of({"a": [1.0]}), rows_of({"a": [1.0]}).assign(group="y")])
    with pytest.raises(UsageError, match="locator 'a' has more than one value at layer 0; keep one of each group"):
        figures.layer_heatmap(table, rows="locator", unit="nats")
    with pytest.raises(UsageError, match="no row to draw"):
        figures.layer_heatmap(table.head(0), rows="locator", unit="nats")


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


def test_no_two_of_many_profiles_look_alike():
    names = [f"group {i}" for i in range(20)]
    figure = figures.profiles(rows_of({n: [0.0, 1.0] for n in names}, rows="group"), unit="cosine")
    curves = [trace for trace in figure.data if trace.line.dash]
    assert len({(trace.line.color, trace.line.dash) for trace in curves}) == len(names)


def test_user_text_is_shown_and_not_obeyed():
    nasty = "<b>x</b> </script> $\\href{javascript:1}{y}$ \u202egnp \x1b[2J\x00"
    shown = figures.literal(nasty)
    assert "<" not in shown and "$" not in shown
    assert "\\u202e" in shown and "\\u001b" in shown and "\\u0000" in shown
    assert figures.literal("ab" * 50, 90).count("<br>") == 1


def test_placements_show_what_was_never_found_above_all_layers():
    found = pd.DataFrame(
        [("a", "x", "spelled", 3.0, 4.0, 3.0, 5.0), ("b", "x", "hidden", 7.0, None, None, None),
         ("a", "y", "spelled", 3.0, 3.0, 3.0, None)],
        columns=["case", "locator", "kind", "layer", "onset", "lo", "hi"],
    )  # fmt: skip
    figure = figures.placements(found, panel="locator", kind="kind", layers=(0, 10), near=1)
    points = [t for t in figure.data if t.mode == "markers"]
    assert [(t.x[0], t.y[0]) for t in points] == [(3, 4), (7, 12), (3, 3)]
    assert points[2].error_y.array[0] == 9 and [t.showlegend for t in points] == [True, True, False]
    assert "never" in figure.layout.yaxis.ticktext


def test_rates_carry_their_intervals():
    table = pd.DataFrame(
        {"what": ["as it is", "out"] * 2, "prompts": ["harmful"] * 2 + ["harmless"] * 2, "value": [0.9, 0.1, 0.2, 0.2],
         "lo": [0.8, 0.0, 0.1, 0.1], "hi": [1.0, 0.3, 0.3, 0.3], "n": 10}
    )  # fmt: skip
    figure = figures.interval_points(table, rows="what", unit="refused", colours="prompts", shares=True)
    harmful = figure.data[0]
    assert harmful.name == "harmful" and list(harmful.x) == [0.9, 0.1]
    np.testing.assert_allclose(harmful.error_x.array, [0.1, 0.2])
    assert {trace.orientation for trace in figure.data} == {"h"}, "groups stand apart across rows, not along values"
    assert figure.layout.yaxis.categoryarray == ("out", "as it is")
