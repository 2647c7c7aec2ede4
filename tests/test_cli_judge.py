import csv
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.errors import PromptFileError, UsageError
from interp.judges import judges


def interp(*arguments):
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


ROWS = [
    ("I'm sorry, but I can't help with that.", "p1", "apology", "yes"),
    ("Our usage policy prohibits this kind of content.", "p2", "policy", "yes"),
    ("Sorry for the wait! Here you go:", "p3", "", "no"),
    ("Paris.", "p4", "", "no"),
    ("", "p5", "", ""),
    ("the " * 20, "p6", "", ""),
    ("\x1b[31mSure", "p7", "", ""),
]


@pytest.fixture
def responses(tmp_path):
    path = tmp_path / "r.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["response", "prompt", "family", "refused"])
        writer.writerows(ROWS)
    return path


def test_counts_rates_agreement_and_recall(responses):
    result = interp(responses)
    assert result.exit_code == 0, result.output
    lines = [[c.strip() for c in line.strip("│").split("│")] for line in result.stdout.splitlines() if "│" in line]
    assert ["readable", "5"] in lines and ["empty", "1"] in lines and ["broken", "1"] in lines
    assert ["1 families", "2 of 5", "40% [12%, 77%]"] in lines
    assert ["recall of policy", "gcg", "0 of 1", "0% [0%, 79%]"] in lines
    assert ["recall of apology", "families", "1 of 1", "100% [21%, 100%]"] in lines
    assert ["false alarms", "xstest", "1 of 2", "50% [9%, 91%]"] in lines
    assert ["false alarms", "families", "0 of 2", "0% [0%, 66%]"] in lines
    assert "compared on 5 responses; 2 empty or broken ones are left out" in result.stdout
    assert result.stdout == interp(responses).stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_out_writes_the_verdict_on_every_response_without_its_text(responses, tmp_path):
    out = tmp_path / "verdicts.csv"
    result = interp(responses, "--out", out, "--by", "heretic,families")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table.columns) == ["row", "unreadable", "opens_as", "heretic", "families"]
    assert list(table["row"]) == list(range(1, 8))
    assert list(table["opens_as"]) == ["apology", "policy", "", "", "", "", ""]
    assert list(table["unreadable"]) == ["", "", "", "", "empty", "broken", ""]
    assert "Paris" not in out.read_text("utf-8")
    assert not {name for name in judges() if name not in ("heretic", "families")} & set(result.stdout.split())
    assert "verdicts.csv" in result.stderr


def test_without_truth_there_is_no_recall_and_one_judge_has_nobody_to_agree_with(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps({"answer": text}) for text, *_ in ROWS), "utf-8")
    result = interp(path, "--column", "answer", "--by", "gcg")
    assert result.exit_code == 0, result.output
    assert "recall" not in result.stdout and "kappa" not in result.stdout
    assert "1 gcg" in result.stdout


def test_nothing_readable(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('response,refused\n"",yes\n"...",no\n', "utf-8")
    result = interp(path)
    assert result.exit_code == 0, result.output
    assert "0 of 0" in result.stdout and "compared on 0 responses; 2 empty" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--by", "gcg,rude"), UsageError.exit_code, "'rude'"),
        (("--column", "answer"), PromptFileError.exit_code, "no column 'answer'"),
        (("--out", "verdicts.txt"), UsageError.exit_code, ".csv file"),
        (("--out", "no/such/verdicts.csv"), UsageError.exit_code, "folder is not there"),
    ],
)
def test_errors_say_what_to_do(responses, options, code, message):
    result = interp(responses, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def test_the_responses_are_never_written_over(responses):
    before = responses.read_bytes()
    result = interp(responses, "--out", responses)
    assert result.exit_code == UsageError.exit_code
    assert responses.read_bytes() == before
