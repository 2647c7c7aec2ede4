import json

import pytest

from interp.errors import StudyError
from interp.ledger import LEDGER, read_claims, write_claims
from interp.study import Claim, Control

ORIGIN = {"prompts": "ab" * 32, "code": "c0de", "seed": 0, "run": "r1", "folds": {"names": ["a", "b"]}}


def claim(**changed):
    controls = (Control("fires", True, "on 90%", "50%"), Control("interval", False, "wide", "narrow"))
    plain = {"statement": "It is <b>.", "locator": "rule", "family": "apology", "position": "t_post", "onset": 3.0}
    return Claim(**{**plain, "lo": 2.0, "hi": None, "n": 9, "controls": controls, "provenance": ORIGIN, **changed})


def test_what_is_written_is_read(tmp_path):
    claims = (claim(), claim(locator="other", onset=None, lo=None, hi=None, controls=()))
    write_claims(claims, tmp_path)
    assert read_claims(tmp_path) == claims
    write_claims((), tmp_path)
    assert read_claims(tmp_path) == ()


def test_a_record_names_where_it_comes_from_and_what_it_passed(tmp_path):
    record = json.loads(write_claims([claim()], tmp_path).read_text("utf-8"))["claims"][0]
    expected = {"data_digest": "ab" * 32, "code_version": "c0de", "seed": 0, "position": "t_post", "family": "apology"}
    assert expected.items() <= record.items()
    assert record["interval"] == [2.0, None] and record["established"] is False
    assert [(c["name"], c["passed"]) for c in record["controls"]] == [("fires", True), ("interval", False)]


@pytest.mark.parametrize("gone", ["prompts", "code", "seed"])
def test_a_claim_that_does_not_say_where_it_comes_from_is_not_written(gone, tmp_path):
    with pytest.raises(ValueError, match=f"rule does not say its {gone}"):
        write_claims([claim(provenance={k: v for k, v in ORIGIN.items() if k != gone})], tmp_path)
    assert not (tmp_path / LEDGER).exists()


def test_never_and_unknown_are_null_and_not_nan(tmp_path):
    text = write_claims([claim(onset=float("inf"), lo=float("nan"), hi=float("inf"))], tmp_path).read_text("utf-8")
    assert "NaN" not in text and "Infinity" not in text


def establish(ledger):
    ledger["claims"][0]["controls"][1]["passed"] = True


def shift(ledger):
    ledger["claims"][0]["onset"] = 4.0


@pytest.mark.parametrize("change", [establish, shift, lambda d: d["claims"].clear(), lambda d: d.pop("sha256")])
def test_a_changed_ledger_is_refused(change, tmp_path):
    path = write_claims([claim()], tmp_path)
    ledger = json.loads(path.read_text("utf-8"))
    change(ledger)
    path.write_text(json.dumps(ledger), "utf-8")
    with pytest.raises(StudyError, match="changed after it was written, run the command"):
        read_claims(tmp_path)


def test_a_resealed_claim_that_contradicts_itself_is_refused(tmp_path):
    import hashlib

    path = write_claims([claim()], tmp_path)
    ledger = json.loads(path.read_text("utf-8"))
    ledger["claims"][0]["established"] = True
    canonical = json.dumps(ledger["claims"], sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({**ledger, "sha256": hashlib.sha256(canonical).hexdigest()}), "utf-8")
    with pytest.raises(StudyError, match="contradict"):
        read_claims(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "could not be read"),
        ("{", "is no JSON"),
        ("[]", "format 1, this version reads 2; run the command that made the study again"),
        ('[{"statement": "old"}]', "format 1"),
        ('{"format": 3}', "update interp"),
        ('{"claims": []}', "no ledger"),
        ("3", "no ledger"),
        ('{"format": 2, "claims": {}, "sha256": ""}', "expected sha256"),
    ],
)
def test_another_file_is_refused_with_what_to_do(text, said, tmp_path):
    if text is not None:
        (tmp_path / LEDGER).write_text(text, "utf-8")
    with pytest.raises(StudyError, match=said) as error:
        read_claims(tmp_path)
    assert LEDGER in str(error.value)
