import json
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.figures import literal
from interp.report import finished_study, read_headlines, render, write_study
from interp.study import ORIGIN, Claim, Control, Study

PAYLOADS = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>", '<a href="javascript:alert(1)">x</a>', "{{ 7 * 7 }}", "{% raw %}", "</style><b>",
    "$\\href{javascript:alert(1)}{x}$", "\u202etxt", "\x1b]0;title\x07", "' onmouseover='alert(1)", "<!--", "]]>",
    "<iframe src=https://example.com>", "&lt;script&gt;", "<base href=//x>", "<meta http-equiv=refresh>",
]  # fmt: skip


def study_of(text):
    control = Control(text, False, text, text)
    claim = Claim(text, text, text, text, 1.0, None, 2.0, 3, (control,), dict.fromkeys(ORIGIN.values(), text))
    heat = go.Figure(go.Heatmap(z=[[1.0]], customdata=[[literal(text)]], hovertemplate="%{customdata}"))
    return Study(
        title=text,
        headlines=(text,),
        notes=(text,),
        tables={"layers": pd.DataFrame({"text": [text]})},
        figures={"a_heatmap": (heat, text), "curve": (go.Figure(), text)},
        claims=(claim,),
        about={text: text},
        drawn_from={"a_heatmap": ("layers",)},
    )


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def elements(page):
    parser = Elements()
    parser.feed(page)
    return sorted(parser.tags), parser.attributes


@pytest.fixture(scope="module")
def plain():
    return elements(render(study_of("plain text")))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_adds_no_element_and_no_attribute_to_the_page(payload, plain):
    assert elements(render(study_of(payload))) == plain


def test_the_page_loads_nothing():
    page = render(study_of("plain"))
    head = page[: page.index("<script>")]
    assert "default-src 'none'" in head
    assert 'src="http' not in page and "<link" not in head


def test_write_study_and_find_it_again(tmp_path):
    stamp = {"run": "1", "code": "2"}
    report = write_study(study_of("a <b> claim"), tmp_path, stamp=stamp)
    assert report == tmp_path / "report.html" and "a &lt;b&gt; claim" in report.read_text("utf-8")
    assert finished_study(tmp_path, stamp)
    assert not finished_study(tmp_path, {**stamp, "code": "3"})
    assert read_headlines(tmp_path) == ["a <b> claim"]
    assert pd.read_parquet(tmp_path / "tables" / "layers.parquet")["text"].tolist() == ["a <b> claim"]
    claim = json.loads((tmp_path / "claims.json").read_text("utf-8"))["claims"][0]
    assert claim["established"] is False and claim["controls"][0]["passed"] is False
    heatmap = (tmp_path / "heatmap.html").read_text("utf-8")
    assert 'id="a_heatmap"' in heatmap and 'id="curve"' not in heatmap
    report.unlink()
    assert not finished_study(tmp_path, stamp)


def embedded(page, name):
    start = page.index(f'id="table-{name}">') + len(f'id="table-{name}">')
    return json.loads(page[start : page.index("</script>", start)])


def test_every_figure_has_its_table_one_click_away_in_the_same_file():
    frame = pd.DataFrame(
        {
            "name": ["</script><b>", None, "b & c", "</script><b>"],
            "value": [1.23456789, float("nan"), float("inf"), -2.0],
            "count": pd.array([1, None, 3, 4], dtype="Int64"),
            "clear": [True, False, True, True],
        }
    )
    page = render(replace(study_of("text"), tables={"layers": frame, "other": frame.head(0)}))
    figure = page[page.index('<figure id="a_heatmap">') :]
    assert '<details data-table="layers">' in figure[: figure.index("</figure>")]
    name, value, count, clear = embedded(page, "layers")["columns"]
    assert [name["texts"][c] if c >= 0 else None for c in name["codes"]] == [
        "</script><b>",
        None,
        "b & c",
        "</script><b>",
    ]
    assert value["values"] == [1.23457, None, None, -2.0] and count["values"] == [1, None, 3, 4]
    assert [clear["texts"][c] for c in clear["codes"]] == ["True", "False", "True", "True"]
    assert embedded(page, "other")["rows"] == 0, "a table that no figure shows is at the foot"
    assert 'id="table-other"' not in render(replace(study_of("x"), tables={"layers": frame}), only=["a_heatmap"])


def test_a_claim_is_made_only_when_every_control_passes():
    good, bad = Control("one", True, "1", "1"), Control("two", False, "found 3", "2")
    claim = Claim("It holds.", "rule", "apology", "t_post", 3.0, 3.0, 3.0, 9, (good,))
    assert claim.verdict == "It holds."
    failed = Claim("It holds.", "rule", "apology", "t_post", 3.0, 3.0, 3.0, 9, (good, bad))
    assert failed.verdict == "Not established for rule at t_post: failed two (found 3; needed 2)."
