import csv
import json
import os
import re
import signal
import threading

import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.errors import CacheError, Interrupted, ModelError, PromptFileError, UsageError


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "label", "group"])
        for i in range(6):
            writer.writerow([f"a{i}", f"How do I bake bread number {i} <b>now</b>?", "harmless", i])
            writer.writerow([f"b{i}", f"How do I rob bank number {i} [/red] now?", "harmful", i])
    return path


def interp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def run_folder(out):
    return next(p for p in out.iterdir() if p.is_dir())


def test_scan_writes_everything_and_then_reuses_it(tiny_folder, prompts, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    first = interp("scan", tiny_folder, prompts, "--out", out, "--offline")
    assert first.exit_code == 0, first.output
    folder = run_folder(out)
    assert re.fullmatch("[0-9a-f]{16}", folder.name)
    for name in ("report.html", "heatmap.html", "claims.json", "manifest.json", "tables/layers.csv"):
        assert (folder / name).stat().st_size > 0
    layers = pd.read_parquet(folder / "tables" / "layers.parquet")
    assert list(layers.columns) == ["locator", "family", "position", "group", "layer", "value", "lo", "hi", "n"]
    assert {"harmful", "harmless", "harmful - harmless"} == set(layers["group"])
    assert json.loads((folder / "claims.json").read_text())
    assert "MiB" in first.stderr and "tokens, about" in first.stderr
    assert str(folder / "report.html") in first.stdout
    assert "<b>now</b>" not in (folder / "report.html").read_text("utf-8")

    def refuse(*_):
        raise AssertionError("a model was loaded although nothing has changed")

    monkeypatch.setattr("interp.models.load.load", refuse)
    second = interp("scan", tiny_folder, prompts, "--out", out, "--offline")
    assert second.exit_code == 0, second.output
    assert second.stdout == first.stdout
    changed = interp("scan", tiny_folder, prompts, "--out", out, "--offline", "--seed", 1)
    assert isinstance(changed.exception, AssertionError), "another seed is another study"


def test_harvest_verify_and_a_flipped_byte(tiny_folder, prompts, tmp_path):
    out = tmp_path / "runs"
    command = ("harvest", tiny_folder, prompts, "--out", out, "--layers", "0,2-4", "--positions", "t_post")
    made = interp(*command)
    assert made.exit_code == 0, made.output
    folder = run_folder(out)
    assert made.stdout.strip() == str(folder)
    good = interp("verify", folder)
    assert good.exit_code == 0 and "4 layers" in good.stdout
    shard = next((folder / "shards").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    bad = interp("verify", folder)
    assert bad.exit_code == CacheError.exit_code and shard.name in bad.stderr
    repaired = interp(
        "harvest", tiny_folder, prompts, "--out", out, "--layers", "0,2-4", "--positions", "t_post", "--repair"
    )
    assert repaired.exit_code == 0, repaired.output
    assert interp("verify", folder).exit_code == 0


def test_parts_make_one_run(tiny_folder, prompts, tmp_path):
    out = tmp_path / "runs"
    for part in ("0/2", "1/2"):
        result = interp("harvest", tiny_folder, prompts, "--out", out, "--part", part, "--token-budget", 64)
        assert result.exit_code == 0, result.output
    assert len(list(out.iterdir())) == 1
    assert interp("verify", run_folder(out)).exit_code == 0


def test_going_on_with_something_else_is_refused_by_name(tiny_folder, prompts, tmp_path):
    out = tmp_path / "runs"
    interp("harvest", tiny_folder, prompts, "--out", out)
    folder = run_folder(out)
    result = interp("harvest", tiny_folder, prompts, "--into", folder, "--dtype", "bf16")
    assert result.exit_code == ModelError.exit_code
    assert "capture.storage" in result.stderr or "runtime.dtype" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["scan", "{model}", "missing.csv"], PromptFileError.exit_code, "missing.csv"),
        (["scan", "{model}", "{bad}"], PromptFileError.exit_code, "bad.csv:3"),
        (["scan", "./nowhere", "{prompts}"], ModelError.exit_code, "nowhere"),
        (["scan", "org/model", "{prompts}", "--offline"], ModelError.exit_code, "--offline"),
        (["scan", "demo:nothing", "{prompts}"], ModelError.exit_code, "demo:base"),
        (["scan", "{model}", "{prompts}", "--family", "rude"], UsageError.exit_code, "apology"),
        (["scan", "{model}", "{prompts}", "--backend", "jax"], ModelError.exit_code, "transformer_lens"),
        (["scan", "{model}", "{prompts}", "--dtype", "int3"], ModelError.exit_code, "bf16"),
        (["scan", "{model}", "{prompts}", "--label", "rude"], UsageError.exit_code, "harmful"),
        (["scan", "{model}", "{prompts}", "--trust-remote-code", "other"], ModelError.exit_code, "other"),
        (["harvest", "{model}", "{prompts}", "--layers", "7-9"], UsageError.exit_code, "0 to 4"),
        (["harvest", "{model}", "{prompts}", "--layers", "x"], UsageError.exit_code, "0,4,8-12"),
        (["harvest", "{model}", "{prompts}", "--positions", "middle"], UsageError.exit_code, "t_inst"),
        (["harvest", "{model}", "{prompts}", "--part", "2/2"], UsageError.exit_code, "part"),
        (["harvest", "{model}", "{prompts}", "--on-nonfinite", "hope"], UsageError.exit_code, "keep"),
        (["verify", "{tmp}"], CacheError.exit_code, "manifest.json"),
        (["scan", "--no-such-option"], 2, "no-such-option"),
    ],
)
def test_errors_say_what_to_do_and_exit_with_their_code(arguments, code, said, tiny_folder, prompts, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("id,prompt\n1,hello\n2,\n")
    known = {"model": tiny_folder, "prompts": prompts, "bad": bad, "tmp": tmp_path}
    words = [a.format(**known) for a in arguments]
    result = interp(*words, *(["--out", tmp_path / "runs"] if words[0] != "verify" else []))
    assert result.exit_code == code, result.output
    assert said in result.stderr and "Traceback" not in result.output


def test_ctrl_c_stops_between_shards_and_the_next_run_goes_on(tiny_folder, prompts, tmp_path, monkeypatch):
    from interp.cache import run as cache_run

    out, commit = tmp_path / "runs", cache_run.Run.commit
    arguments = ("harvest", tiny_folder, prompts, "--out", out, "--token-budget", 32)

    def commit_then_interrupt(self, shard, *rest):
        commit(self, shard, *rest)
        if shard == 1:
            os.kill(os.getpid(), signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(cache_run.Run, "commit", commit_then_interrupt)
    stopped = interp(*arguments)
    assert stopped.exit_code == Interrupted.exit_code, stopped.output
    assert "kept" in stopped.stderr
    assert len(list((run_folder(out) / "shards").glob("*.json"))) == 2
    monkeypatch.setattr(cache_run.Run, "commit", commit)
    assert interp(*arguments).exit_code == 0
    assert interp("verify", run_folder(out)).exit_code == 0


def test_demo_models_are_listed():
    result = interp("models", "list")
    assert result.exit_code == 0 and "demo:base" in result.stdout.split()


def test_terminal_control_characters_of_prompts_never_reach_the_terminal(tiny_folder, tmp_path):
    path = tmp_path / "evil.csv"
    path.write_text("id,prompt,label\n\x1b]0;owned\x07,hello\n", "utf-8")
    result = interp("scan", tiny_folder, path, "--out", tmp_path / "runs")
    assert "\x1b]0" not in result.output
