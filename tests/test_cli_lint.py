import json

import pandas as pd
from typer.testing import CliRunner

from interp.cli import app
from interp.errors import UsageError
from interp.prompts import Message, read_prompts
from tests.prompts.planted import null, planted, prompt_set


def interp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def written(prompts, path):
    prompt_set(prompts).frame().to_csv(path, index=False)
    return path


def test_a_leak_is_a_finding_and_no_error(tmp_path):
    result = interp("lint", written(planted("image"), tmp_path / "mine.csv"))
    assert result.exit_code == 0, result.output
    assert "leaks: image alone tells harmful from harmless, AUROC 1.00" in result.stdout
    assert "no leak by length" in result.stdout and "no matched subset: the image alone" in result.stdout


def test_the_matched_subset_is_written_and_reads_back(tmp_path):
    path, out = written(planted("words"), tmp_path / "mine.csv"), tmp_path / "new" / "matched.csv"
    result = interp("lint", path, "--out", out)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stderr
    frame = pd.read_csv(out)
    assert list(frame.columns)[:2] == ["id", "text"] and (frame["pair"].value_counts() == 2).all()
    back, whole = read_prompts(out), {p.id: p for p in read_prompts(path)}
    assert all(whole[p.id] == p for p in back)
    assert sum(p.label == "harmful" for p in back) == len(back) / 2 >= 20


def test_conversations_are_written_whole(tmp_path):
    turns = (Message("system", "Be brief."), Message("user", "Hi."), Message("assistant", "Yes?"))
    rows = [{"id": p.id, "label": p.label, "messages": [*turns, *p.messages]} for p in null(60)]
    lines = [
        json.dumps({**r, "messages": [{"role": m.role, "content": m.content} for m in r["messages"]]}) for r in rows
    ]
    path, out = tmp_path / "mine.jsonl", tmp_path / "matched.csv"
    path.write_text("\n".join(lines), "utf-8")
    assert interp("lint", path, "--out", out).exit_code == 0
    whole = {p.id: p for p in read_prompts(path)}
    assert all(whole[p.id].messages == p.messages for p in read_prompts(out))


def test_without_a_subset_nothing_is_written(tmp_path):
    out = tmp_path / "matched.csv"
    result = interp("lint", written(planted("dataset"), tmp_path / "mine.csv"), "--out", out)
    assert result.exit_code == 0 and not out.exists() and "not written" in result.stderr


def test_everything_as_json():
    result = interp("lint", "twins:test", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert {leak["surface"]: leak["leaks"] for leak in record["leaks"]}["words"]
    assert len(record["match"]["pairs"]) == 168


def test_without_labels_duplicates_are_still_found(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("prompt\nHow do I bake bread?\nHow do I bake bread\nWho painted this?\n", "utf-8")
    result = interp("lint", path)
    assert result.exit_code == 0 and "no labels" in result.stdout and "2 prompts say the same" in result.stdout
    labelled = interp("lint", path, "--label", "harmful")
    assert labelled.exit_code == 0 and "one kind only" in labelled.stdout


def test_bad_places_are_named(tmp_path):
    assert interp("lint", "missing.csv").exit_code == 3
    out = written(null(60), tmp_path / "mine.csv") / "matched.csv"
    result = interp("lint", tmp_path / "mine.csv", "--out", out)
    assert result.exit_code == UsageError.exit_code and "--out" in result.stderr


def test_control_characters_never_reach_the_terminal(tmp_path):
    path = tmp_path / "evil.csv"
    path.write_text("id,prompt\n1,\x1b]0;owned\x07\n2,\x1b]0;owned\x07\n", "utf-8")
    assert "\x1b]0" not in interp("lint", path).output
