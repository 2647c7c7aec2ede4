import pytest

from interp.errors import StudyError, UsageError
from interp.ledger import write_claims
from interp.study import Claim, Control
from interp.tga.layers import parse_layers


def claim(*, position="t_post", lo=3.4, hi=5.2, passed=True, locator="causal_patch"):
    control = Control("placebo", passed, "80 %", "< 50 %")
    origin = {"prompts": "p", "code": "c", "seed": 0}
    return Claim("Refusal is decided.", locator, "apology", position, 4.0, lo, hi, 10, (control,), origin)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", None), ("7", (7,)), ("10-12", (10, 11, 12)), ("12, 3,10-11,3", (3, 10, 11, 12))],
)
def test_layers_are_read(text, expected):
    assert parse_layers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "5-3", "1-2-3", "-1", "3,,4"])
def test_what_names_no_layers_is_refused(text):
    with pytest.raises(UsageError, match="10-18"):
        parse_layers(text)


def test_an_established_claim_names_layers(tmp_path):
    write_claims([claim(locator="fdv", lo=1.0, hi=2.0), claim(position="t_inst", lo=1.0, hi=1.0), claim()], tmp_path)
    assert parse_layers(f"claim:{tmp_path}") == (3, 4, 5, 6), "of t_post, rounded outwards"
    write_claims([claim(passed=False), claim(position="t_inst", lo=1.0, hi=1.0)], tmp_path)
    assert parse_layers(f"claim:{tmp_path}") == (1,)


def test_a_claim_that_is_not_established_is_refused_unless_forced(tmp_path):
    write_claims([claim(passed=False)], tmp_path)
    with pytest.raises(UsageError, match="placebo"):
        parse_layers(f"claim:{tmp_path}")
    assert parse_layers(f"claim:{tmp_path}", force=True) == (3, 4, 5, 6)
    write_claims([claim(passed=False, hi=None)], tmp_path)
    with pytest.raises(UsageError, match="names no layers"):
        parse_layers(f"claim:{tmp_path}", force=True)
    write_claims([claim(locator="fdv")], tmp_path)
    with pytest.raises(UsageError, match="no claim"):
        parse_layers(f"claim:{tmp_path}", force=True)
    with pytest.raises(StudyError):
        parse_layers(f"claim:{tmp_path / 'none'}")
