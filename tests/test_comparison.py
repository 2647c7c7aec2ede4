"""Comparing studies whose differences were put there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from interp.cli import app
from interp.comparison import CURVE, apart, both, compare
from interp.comparison_report import NOTHING, claim_table, comparison_study, sentences
from interp.errors import StudyError, UsageError
from interp.report import read_study, write_study
from interp.study import LAYERS_COLUMNS, Claim, Control, Study

LAYERS = range(6)
ORIGIN = {"prompts": "ab" * 32, "code": "c0de", "seed": 0}


def table(shift=None, locators=("probe", "rule"), layers=LAYERS, half=0.1):
    rows = []
    for locator in locators:
        for group in ("harmful", "harmful - harmless"):
            for layer in layers:
                value = layer / 10 + (shift or {}).get((locator, group, layer), 0.0)
                rows.append((locator, "apology", "t_post", group, layer, value, value - half, value + half, 8))
    return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))


def claim(locator="probe", onset=3.0, lo=2.0, hi=4.0, specific=True, **provenance):
    controls = (Control("fires", True, "90%", "50%"), Control("specificity", specific, "found 7%", "50%"))
    origin = {**ORIGIN, **provenance}
    return Claim(f"By {locator}.", locator, "apology", "t_post", onset, lo, hi, 8, controls, origin)


def study(layers=None, claims=None, **about):
    return Study(
        "A scan",
        ("headline",),
        (),
        {"layers": table() if layers is None else layers},
        {},
        (claim(),) if claims is None else tuple(claims),
        {"model.name": "m", **about},
    )


def test_a_study_does_not_differ_from_itself():
    found = compare(study(), study())
    assert found.same_findings and not found.identity
    assert sentences(found) == [NOTHING]
    assert found.curves["identical"].all() and not found.curves["apart"].any()
    assert found.curves["layer"].isna().all()


def test_only_the_code_differs():
    found = compare(study(code="1"), study(code="2"))
    assert found.same_findings
    assert [(c.field, c.first, c.second) for c in found.identity] == [("code", "1", "2")]
    assert "differs in code" in sentences(found)[0] and NOTHING in sentences(found)[1]


def test_identity_is_compared_field_by_field():
    found = compare(study(seed="0", adapter="a"), study(seed="1", backend="b"))
    assert {c.field: (c.first, c.second) for c in found.identity} == {
        "seed": ("0", "1"),
        "adapter": ("a", "-"),
        "backend": ("-", "b"),
    }


def test_a_planted_difference_is_found_at_its_layer():
    moved = {("rule", "harmful", 2): 0.15, ("rule", "harmful", 3): 0.3, ("rule", "harmful", 4): -0.5}
    found = compare(study(), study(table(moved))).curves.set_index(["locator", "group"])
    row = found.loc[("rule", "harmful")]
    assert (row["layer"], row["apart"], row["layers"]) == (4, 2, 6), "0.15 is inside the intervals"
    assert row["difference"] == pytest.approx(-0.5)
    assert (row["first"], row["second_lo"], row["second_hi"]) == pytest.approx((0.4, -0.2, 0.0))
    assert found.drop(("rule", "harmful"))["identical"].all()


def test_a_difference_inside_the_intervals_is_said_to_show_none():
    found = compare(study(), study(table({("rule", "harmful", 3): 0.15})))
    assert not found.same_findings and found.curves["layer"].isna().all()
    assert any("rule" in line and "no difference shown" in line for line in sentences(found))


def test_a_claim_lost_names_the_control_that_failed():
    found = compare(study(), study(claims=[claim(specific=False)]))
    (pair,) = found.claims
    assert pair.flipped and [name for name, *_ in pair.controls] == ["specificity"]
    (line,) = [one for one in sentences(found) if "established in the first" in one]
    assert "specificity passed" in line and "then failed (found 7%)" in line and "fires" not in line


@pytest.mark.parametrize(
    ("second", "overlap", "said"),
    [
        ((4.0, 3.0, 5.0), True, "+1 layers, inside the intervals: no difference shown"),
        ((5.0, 5.0, 6.0), False, "+2 layers, intervals do not overlap"),
        ((None, 4.0, None), True, "to never, inside the intervals: no difference shown"),
        ((None, None, None), False, "to never, intervals do not overlap"),
        ((3.0, 1.0, 9.0), True, "none"),
    ],
)
def test_a_shift_of_the_onset_is_held_against_both_intervals(second, overlap, said):
    found = compare(study(), study(claims=[claim(onset=second[0], lo=second[1], hi=second[2])]))
    assert found.claims[0].overlap is overlap
    assert claim_table(found.claims)["onset shift"].tolist() == [said]


def test_a_claim_without_an_onset_has_no_shift():
    none = claim(onset=None, lo=None, hi=None)
    (pair,) = compare(study(claims=[none]), study(claims=[none])).claims
    assert pair.overlap is None and np.isnan(pair.shift) and pair.same


def test_claims_and_curves_of_one_study_only():
    first = study(table(locators=("probe", "old")), [claim("probe"), claim("old")])
    second = study(table(locators=("probe", "new")), [claim("probe"), claim("new", specific=False)])
    found = compare(first, second)
    assert found.only_first[CURVE].drop_duplicates()["locator"].unique().tolist() == ["old"]
    assert found.only_second["locator"].unique().tolist() == ["new"]
    text = " ".join(sentences(found))
    assert "old (apology, t_post): in the first study only, established" in text
    assert "new (apology, t_post): in the second study only, not established" in text
    assert "2 curves are in the second study only: new (apology)" in text


def test_the_same_claim_of_several_models_is_matched_by_model():
    first = study(claims=[claim(model="a"), claim(model="b", specific=False)])
    second = study(claims=[claim(model="b", specific=False), claim(model="a"), claim(model="c")])
    found = compare(first, second)
    assert [p.name for p in found.claims if p.same] == ["probe (apology, t_post, a)", "probe (apology, t_post, b)"]
    assert [p.name for p in found.claims if p.first is None] == ["probe (apology, t_post, c)"]


def test_two_models_of_one_study_can_not_be_matched_by_the_model_of_another_run():
    found = compare(study(claims=[claim(model="a")]), study(claims=[claim(model="b")]))
    assert len(found.claims) == 1 and found.claims[0].same, "two scans of two models are what is compared"


def test_models_of_different_depth_are_compared_where_both_have_layers():
    found = compare(study(), study(table(layers=range(2, 9))))
    assert found.layers_only_in == (0, 1, 6, 7, 8)
    assert (found.curves["layers"] == 4).all() and not found.curves["identical"].any()
    assert any("0-1, 6-8" in line for line in sentences(found))


@given(
    st.lists(st.tuples(*[st.floats(-5, 5)] * 2, *[st.floats(0, 2)] * 2), min_size=1, max_size=20),
)
def test_apart_is_symmetric_and_needs_a_gap(cells):
    one, two, half, other = np.array(cells).T
    names = {"value_first": one, "lo_first": one - half, "hi_first": one + half}
    frame = pd.DataFrame({**names, "value_second": two, "lo_second": two - other, "hi_second": two + other})
    turned = frame.rename(columns=lambda c: c.replace("first", "x").replace("second", "first").replace("x", "second"))
    found = apart(frame)
    assert found.tolist() == apart(turned).tolist()
    assert (np.abs(one - two)[found] >= (half + other)[found] - 1e-9).all()
    assert not apart(frame.assign(lo_first=np.nan, hi_first=np.nan)).any(), "an unknown interval is apart from none"


def test_studies_with_nothing_in_common_are_refused():
    with pytest.raises(UsageError, match=r"no curve in common.*same --family"):
        compare(study(), study(table().assign(family="policy")))
    with pytest.raises(UsageError, match="no table of layers"):
        compare(study(), replace(study(), tables={"detectors": table()}))


def test_the_page_has_both_curves_of_every_locator_in_one_figure(tmp_path):
    first, second = study(), study(table({("rule", "harmful - harmless", 4): 1.0}), **{"model.name": "<b>n</b>"})
    page = comparison_study(compare(first, second))
    assert len(page.figures) == 2
    figure, caption = page.figures["curves_1"]
    assert caption.startswith("rule")
    lines = {t.name: t for t in figure.data if t.mode == "lines+markers"}
    assert set(lines) == {"first: m", "second: &lt;b&gt;n&lt;/b&gt;"}
    merged = both(first, second)
    own = merged[(merged["locator"] == "rule") & (merged["group"] == "harmful - harmless")]
    assert np.array_equal(lines["first: m"].y, own["value_first"])
    assert np.array_equal(np.asarray(lines["first: m"].marker.size) > 0, apart(own))
    written = write_study(page, tmp_path)
    assert "<b>n" not in written.read_text("utf-8")


@pytest.fixture
def folders(tmp_path):
    write_study(study(claims=[claim(), claim("rule")]), tmp_path / "a", stamp={"code": "1", "models": [{"name": "m"}]})
    changed = study(table({("rule", "harmful", 4): 1.0}), [claim(specific=False), claim("rule")])
    write_study(changed, tmp_path / "b", stamp={"code": "2", "models": [{"name": "m"}]})
    return tmp_path


def interp(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_compare_reads_two_folders_and_writes_a_page(folders):
    found = interp(folders / "a", folders / "b", "--out", folders / "c")
    assert found.exit_code == 0, found.output
    assert "probe (apology, t_post): established in the first study" in found.stdout
    assert "most at layer 4" in found.stdout and "differs in code" in found.stdout
    assert (folders / "c" / "report.html").exists()
    assert {"identity", "claims", "curves", "layers_of_both"} == set(read_study(folders / "c").tables)


def test_the_same_run_twice(folders):
    found = interp(folders / "a", folders / "a")
    assert found.exit_code == 0 and found.stdout.strip() == f"- {NOTHING}"


def test_a_study_is_read_back_as_it_was_written(folders):
    found = read_study(folders / "a")
    assert found.title == "A scan" and found.claims == (claim(), claim("rule"))
    pd.testing.assert_frame_equal(found.tables["layers"], table())
    assert found.about == {"model.name": "m", "code": "1", "models[m].name": "m"}


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        ("missing", 2, "no finished study"),
        ("unfinished", 2, "no finished study"),
        ("older", 2, "older version"),
        ("parquet", 2, "no finished study"),
        ("claims", StudyError.exit_code, "changed after it was written"),
    ],
)
def test_a_folder_that_can_not_be_compared(broken, code, said, folders):
    bad = folders / "b"
    if broken == "unfinished":
        (bad / "study.json").unlink()
    elif broken == "older":
        (bad / "study.json").write_text('{"stamp": {}, "title": "", "headlines": []}', "utf-8")
    elif broken == "parquet":
        (bad / "tables" / "layers.parquet").unlink()
    elif broken == "claims":
        path = bad / "claims.json"
        path.write_text(path.read_text("utf-8").replace("By rule.", "By chance."), "utf-8")
    found = interp(folders / "a", folders / "nowhere" if broken == "missing" else bad)
    assert found.exit_code == code, found.output
    assert said in found.stderr and "Traceback" not in found.output


def test_a_study_compared_is_never_replaced(folders):
    before = (folders / "a" / "study.json").read_bytes()
    found = interp(folders / "a", folders / "b", "--out", folders / "a")
    assert found.exit_code == 2 and "--out" in found.stderr
    assert (folders / "a" / "study.json").read_bytes() == before
