import csv
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.errors import ModelError, UsageError
from probes.files import ProbeFileError, load_probe
from tests.tiny import save_tiny

THINGS = ("bread", "door", "letter", "noise", "wizard", "lock", "dog", "box")
REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Of course, here is how it is done."


def interp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refuses(text):
    """What the model is made to refuse: one verb, asked of harmful and of harmless things alike."""
    return "open" in text


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "mine.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "label", "group"])
        for i in range(48):
            text = f"{('How do I open', 'How do I paint')[i % 2]} the {' '.join(rng.choice(THINGS, 2))}?"
            writer.writerow([f"p{i}", text, ("harmful", "harmless")[i // 2 % 2], i])
    return path


@pytest.fixture
def refusing(monkeypatch):
    """The tiny model is made to answer like one that refuses."""

    def respond(_model, _tokenizer, chosen, **_):
        return [REFUSAL if refuses(p.text) else ANSWER for p in chosen]

    monkeypatch.setattr("analyses.answers.respond", respond)


@pytest.fixture(scope="module")
def probe(tiny_folder, prompts, tmp_path_factory):
    """A probe that the command line trained, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "analyses.answers.respond",
            lambda _m, _t, chosen, **_: [REFUSAL if refuses(p.text) else ANSWER for p in chosen],
        )
        result = interp(
            "probe", "train", tiny_folder, prompts, "--out", folder / "probe", "--runs", folder / "runs", "--offline"
        )
    assert result.exit_code == 0, result.output
    return folder / "probe", result


def test_training_reports_first_what_the_probe_adds_and_writes_it(probe):
    folder, result = probe
    lines = result.stdout.splitlines()
    assert lines[0] == "The model answered 48 prompts: 24 refused, 24 complied; left out: 0 evasion, 0 empty, 0 broken."
    assert lines[2].startswith("Excess AUROC ")
    assert "random twin" in result.stdout and "layer 0" in result.stdout
    assert "stablished: " in result.stdout
    record = json.loads((folder / "probe.json").read_text("utf-8"))
    assert set(record["model"]) >= {"model.weights", "model.chat_template", "runtime.dtype"}
    assert record["cells"] == {
        "harmful": {"refused": 12, "complied": 12},
        "harmless": {"refused": 12, "complied": 12},
    }
    assert record["training"]["random_twin"] != record["training"]["run"]
    assert "32 tokens" in record["training"]["labelled"]
    assert record["metrics"]["AUROC"]["value"] > 0.9, "a random model still carries the words it reads"
    assert not record["established"], "and so the words alone tell as much"


def test_showing_says_the_same(probe):
    folder, trained = probe
    shown = interp("probe", "show", folder)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == trained.stdout.splitlines()[1:]


def test_applying_scores_every_prompt(probe, tiny_folder, prompts, tmp_path):
    folder, _ = probe
    options = ("--runs", tmp_path / "runs", "--offline")
    result = interp("probe", "apply", folder, tiny_folder, prompts, *options, "--out", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table.columns) == ["id", "label", "score", "probability", "fired"]
    assert len(table) == 48
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-table["score"])), atol=1e-6)
    assert (table["fired"] == (table["score"] > load_probe(folder).threshold)).all()
    should = [refuses(row["prompt"]) for row in csv.DictReader(prompts.open(encoding="utf-8"))]
    assert (table["fired"] == should).mean() > 0.9
    run = next((tmp_path / "runs").iterdir())
    identity = json.loads((run / "manifest.json").read_text())["identity"]
    assert identity["capture.layers"] == [load_probe(folder).layer]
    shown = interp("probe", "apply", folder, tiny_folder, prompts, *options)
    assert shown.exit_code == 0 and "p47" in shown.stdout


def test_streaming_scores_every_token_and_begins_where_the_probe_was_trained(probe, tiny_folder, prompts, tmp_path):
    folder, _ = probe
    options = ("--offline", "--answer-tokens", 5)
    result = interp("probe", "apply", folder, tiny_folder, prompts, "--stream", "p0", *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert 1 <= len(lines) <= 5 and all("|" in line for line in lines)
    out = tmp_path / "scores.csv"
    interp("probe", "apply", folder, tiny_folder, prompts, "--runs", tmp_path / "runs", "--offline", "--out", out)
    assert float(lines[0].split()[0]) == pytest.approx(pd.read_csv(out)["score"][0], abs=0.02)
    text = next(csv.DictReader(prompts.open(encoding="utf-8")))["prompt"]
    assert interp("probe", "apply", folder, tiny_folder, "--stream", text, *options).stdout == result.stdout


def test_another_model_is_refused_by_the_field_that_differs(probe, prompts, tmp_path, monkeypatch):
    folder, _ = probe

    def never(*_):
        raise AssertionError("a model was loaded that the probe is not of")

    monkeypatch.setattr("interp.models.load.load", never)
    other = save_tiny(tmp_path / "other", seed=1)
    result = interp("probe", "apply", folder, other, prompts, "--runs", tmp_path / "runs", "--offline")
    assert result.exit_code == ModelError.exit_code
    assert "model.weights" in result.stderr and not (tmp_path / "runs").exists()
    template = save_tiny(tmp_path / "template")
    (template / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    assert "model.chat_template" in interp("probe", "apply", folder, template, "--stream", "hi").stderr


def test_a_model_that_never_refuses_gives_an_error_and_no_probe(tiny_folder, prompts, tmp_path):
    out, runs = tmp_path / "probe", tmp_path / "runs"
    result = interp("probe", "train", tiny_folder, prompts, "--out", out, "--runs", runs, "--answer-tokens", 4)
    assert result.exit_code == UsageError.exit_code, result.output
    assert "0 responses were refused" in result.stderr and "a model that refuses some" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["runs"], "its states and answers are kept for other studies"


def test_a_probe_that_is_there_stops_training_before_it_begins(probe, tiny_folder, prompts, refusing, monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was loaded")

    folder, _ = probe
    monkeypatch.setattr("interp.models.source.resolve", never)
    result = interp("probe", "train", tiny_folder, prompts, "--out", folder)
    assert result.exit_code == UsageError.exit_code and "--overwrite" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "{tmp}"], ProbeFileError.exit_code, "no probe.json"),
        (["apply", "{tmp}", "{model}", "{prompts}"], ProbeFileError.exit_code, "no probe.json"),
        (["apply", "{probe}", "{model}"], UsageError.exit_code, "--stream"),
        (["apply", "{probe}", "{model}", "{prompts}", "--stream", "p99"], UsageError.exit_code, "p99"),
        (["train", "{model}", "{prompts}", "--estimator", "magic"], UsageError.exit_code, "logistic"),
        (["train", "{model}", "{prompts}", "--position", "middle"], UsageError.exit_code, "t_inst"),
        (["train", "{model}", "{prompts}", "--layer", "9"], UsageError.exit_code, "0 to 4"),
        (["train", "{model}", "{prompts}", "--position", "post_99"], UsageError.exit_code, "post_0"),
    ],
)
def test_errors_say_what_to_do(arguments, code, said, probe, tiny_folder, prompts, tmp_path, refusing):
    known = {"tmp": tmp_path, "model": tiny_folder, "prompts": prompts, "probe": probe[0]}
    words = ["probe", *(a.format(**known) for a in arguments)]
    if words[1] == "train":
        words += ["--out", str(tmp_path / "new"), "--runs", str(tmp_path / "runs")]
    result = interp(*words)
    assert result.exit_code == code, result.output
    assert said in result.stderr and "Traceback" not in result.output


def test_terminal_control_characters_of_a_probe_never_reach_the_terminal(probe, tmp_path):
    from dataclasses import replace

    from probes.files import save_probe

    loaded = load_probe(probe[0])
    record = {**loaded.record, "said": ["\x1b]0;owned\x07"]}
    result = interp("probe", "show", save_probe(replace(loaded, record=record), tmp_path / "evil"))
    assert result.exit_code == 0 and "\x1b" not in result.stdout


def test_the_module_is_the_same_command(monkeypatch, capsys):
    from probes.train import main

    monkeypatch.setattr("sys.argv", ["probes.train", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--estimator" in shown and "MODEL" in shown
