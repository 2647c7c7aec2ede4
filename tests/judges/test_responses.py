import json
from pathlib import Path

import pandas as pd
import pytest

from interp.errors import PromptFileError
from interp.judges.responses import read_responses


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_with_everything_known(tmp_path: Path) -> None:
    content = 'Response,prompt,family,refused\n"No, never",p1,apology,yes\nSure,p2,,no\n"",p1,,\nWell,p3,policy,\n'
    frame = read_responses(written(tmp_path, "r.csv", content))
    assert list(frame["response"]) == ["No, never", "Sure", "", "Well"]
    assert list(frame["family"]) == ["apology", "", "", "policy"]
    assert frame["refused"].to_list() == [True, False, pd.NA, True]  # a family alone says it is a refusal
    assert frame["group"][0] == frame["group"][2] != frame["group"][1]


def test_jsonl_with_other_names(tmp_path: Path) -> None:
    rows = [{"answer": "a", "group": 1, "prompt": "x", "refused": True}, {"answer": "b", "group": 1, "refused": 0}]
    path = written(tmp_path, "r.jsonl", "\n".join(map(json.dumps, rows)))
    frame = read_responses(path, column="Answer")
    assert list(frame["response"]) == ["a", "b"]
    assert frame["group"].nunique() == 1
    assert list(frame["refused"]) == [True, False]


def test_alone_each_response_is_a_group(tmp_path: Path) -> None:
    frame = read_responses(written(tmp_path, "r.json", '[{"response": "a"}, {"response": "a"}]'))
    assert frame["group"].nunique() == 2
    assert frame["refused"].isna().all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", "a", "suffix '.txt'"),
        ("r.csv", "", "is empty"),
        ("r.csv", "answer\nyes\n", "no column 'response', only 'answer'"),
        ("r.csv", "response\n", "has no responses"),
        ("r.jsonl", '{"response": null}\n{"response": 3}\n', "r.jsonl:2: response must be a string"),
        ("r.csv", "response,refused\na,yes\nb,maybe\n", "r.csv:3: refused 'maybe' is none of"),
        ("r.csv", b"response\n\xff\n", "r.csv:2: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(PromptFileError, match=message):
        read_responses(written(tmp_path, name, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="can not be read"):
        read_responses(tmp_path / "no.csv")
