import csv

import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.errors import ModelError, UsageError
from interp.prompts.families import family_names, load_family


def interp(*arguments):
    return CliRunner().invoke(app, ["families", *map(str, arguments)], env={"COLUMNS": "300"})


def test_list_names_every_family():
    result = interp("list")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    families = [load_family(name) for name in family_names()]
    assert rows == [[f.name, f.kind, f.language, str(len(f.phrases))] for f in families]


def test_audit_says_how_blind_the_lens_is_and_writes_every_phrase(tiny_folder, tmp_path):
    path = tmp_path / "audit.csv"
    result = interp("audit", tiny_folder, "--offline", "--csv", path)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [row["phrase"] for row in rows] == [p for name in family_names() for p in load_family(name).phrases]
    blind = sum(row["blind"] == "True" for row in rows)
    said = f"A first-token lens is blind to {blind} of {len(rows)} phrases of {len(family_names())} families."
    assert result.stdout.splitlines()[0].startswith(said)
    assert str(path) in result.stderr
    assert all(name in result.stdout for name in family_names())
    assert rows[0]["phrase"] not in result.stdout, "phrases are shown for families that are named"


def test_a_family_of_the_users_is_shown_without_its_control_characters(tiny_folder, tmp_path):
    path = tmp_path / "rude.txt"
    path.write_text("Go \x1b[31maway, you.\nI will not.\n", "utf-8")
    result = interp("audit", tiny_folder, "--family", path, "--offline")
    assert result.exit_code == 0, result.output
    assert "phrases of rude." in result.stdout
    assert "\x1b[31m" not in result.output and "\\x1b[31maway" in result.stdout
    assert "answers en" in result.stdout and "I| will| not" in result.stdout.replace("w|i|l|l", "will")


def test_several_families_are_told_apart(tiny_folder, tmp_path):
    path = tmp_path / "rude.txt"
    path.write_text("Zounds, go away.\n", "utf-8")
    result = interp("audit", tiny_folder, "--family", path, "--family", "apology", "--family", "apology")
    assert result.exit_code == 0, result.output
    assert "phrases of 2 families." in result.stdout
    shown = [line for line in result.stdout.splitlines() if "│" in line]
    assert sum(" apology " in line for line in shown) >= len(load_family("apology").phrases)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{model}", "--family", "rude"], UsageError.exit_code, "apology"),
        (["{model}", "--family", "{empty}"], UsageError.exit_code, "holds no phrase"),
        (["{model}", "--family", "{tmp}/none.txt"], UsageError.exit_code, "none.txt"),
        (["{model}", "--family", "apology", "--family", "{again}"], UsageError.exit_code, "two families"),
        (["{model}", "--csv", "{tmp}/nowhere/x.csv"], UsageError.exit_code, "folder"),
        (["{model}", "--csv", "{tmp}/x.parquet"], UsageError.exit_code, ".csv"),
        (["./nowhere"], ModelError.exit_code, "nowhere"),
        (["org/model", "--offline"], ModelError.exit_code, "--offline"),
        (["{tmp}"], ModelError.exit_code, "tokenizer"),
    ],
)
def test_errors_say_what_to_do(arguments, code, said, tiny_folder, tmp_path):
    empty, again = tmp_path / "empty.txt", tmp_path / "apology.txt"
    empty.write_text("\n", "utf-8")
    again.write_text("No.\n", "utf-8")
    known = {"model": tiny_folder, "tmp": tmp_path, "empty": empty, "again": again}
    result = interp("audit", *(a.format(**known) for a in arguments))
    assert result.exit_code == code, result.output
    assert said in result.stderr and "Traceback" not in result.output


def test_the_weights_are_not_read(tiny_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    assert interp("audit", tiny_folder, "--family", "apology").exit_code == 0
