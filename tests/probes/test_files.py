import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.cache.identity import canonical_json
from interp.errors import ModelMismatch, UsageError
from probes.files import ProbeFileError, load_probe, save_probe
from probes.probe import Probe
from probes.record import summary
from tests.probes.planted import PLANTED, noise_cache

IDENTITY = {
    "model.name": "demo:x",
    "model.weights": "w",
    "model.adapter": "a",
    "model.config": "c",
    "model.tokenizer": "t",
    "model.chat_template": "ct",
    "runtime.dtype": "bf16",
}


@pytest.fixture
def of_a_model(trained):
    """The planted probe, as if it were of a model with digests."""
    return Probe({**trained.probe.record, "model": IDENTITY}, trained.probe.tensors, "probe")


def rewrite(folder, **changed):
    """Changes the record as one who knows its digest would; None takes a field out."""
    path = folder / "probe.json"
    record = {k: v for k, v in {**json.loads(path.read_text()), **changed}.items() if v is not None}
    record.pop("record_sha256", None)
    record["record_sha256"] = hashlib.sha256(canonical_json(record)).hexdigest()
    path.write_text(json.dumps(record))


def test_a_round_trip_is_exact_to_the_bit(trained, folder, planted):
    loaded = load_probe(folder)
    assert {p.name for p in folder.iterdir()} == {"probe.json", "probe.safetensors"}
    for name, tensor in trained.probe.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor) and loaded.tensors[name].dtype == torch.float32
    states = planted.residuals(position="t_post", layer=PLANTED)
    assert torch.equal(loaded.score(states), trained.probe.score(states))
    assert loaded.threshold == trained.probe.threshold
    assert summary(loaded) == summary(trained.probe)
    again = save_probe(loaded, folder.with_name("again"))
    for name in ("probe.json", "probe.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_the_numbers_are_folded_for_states_as_stored(folder, planted):
    numbers = load_file(folder / "probe.safetensors")
    assert {k: tuple(v.shape) for k, v in numbers.items()} == {"direction": (24,), "bias": ()}
    states = planted.residuals(position="t_post", layer=PLANTED)
    torch.testing.assert_close(load_probe(folder).score(states), states @ numbers["direction"] + numbers["bias"])


def test_a_score_does_not_depend_on_the_rows_beside_it(trained, planted):
    states = planted.residuals(position="t_post", layer=PLANTED)
    whole = trained.probe.score(states)
    assert all(torch.equal(whole[i : i + 1], trained.probe.score(states[i : i + 1])) for i in range(0, 120, 7))
    assert trained.probe.score(states[:0]).shape == (0,)
    assert torch.equal(trained.probe.score(states.bfloat16()), trained.probe.score(states.bfloat16().float()))
    assert not trained.probe.fired(torch.tensor([float("nan")])).any()


def test_the_record_says_what_the_probe_is(folder, planted):
    record = json.loads((folder / "probe.json").read_text("utf-8"))
    assert record["format"] == "interp probe" and record["version"] == 1
    assert (record["estimator"], record["layer"], record["position"], record["d_model"]) == (
        "logistic",
        3,
        "t_post",
        24,
    )
    assert record["sha256"] == hashlib.sha256((folder / "probe.safetensors").read_bytes()).hexdigest()
    training = record["training"]
    assert training["prompts"] == planted.identity["prompts"] and training["run"] == planted.key
    assert {"labels", "labelled", "code", "seed", "folds", "random_twin"} <= training.keys()
    for metric in record["metrics"].values():
        assert metric["lo"] <= metric["hi"] and 0 <= metric["value"] <= 1 and metric["n"] > 0
    assert record["cells"]["harmful"] == {"refused": 40, "complied": 20}


def test_nothing_is_replaced_without_being_asked(trained, folder, tmp_path):
    before = (folder / "probe.json").read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        save_probe(trained.probe, folder)
    assert (folder / "probe.json").read_bytes() == before
    save_probe(trained.probe, folder, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        save_probe(trained.probe, folder, overwrite=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        save_probe(trained.probe, file, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"probe", "file"}, "nothing temporary stays"


def test_a_failed_write_leaves_what_was_there(trained, folder, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ProbeFileError, match="No space left"):
        save_probe(trained.probe, folder, overwrite=True)
    monkeypatch.undo()
    load_probe(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["probe"]


@pytest.mark.parametrize("name", ["probe.json", "probe.safetensors"])
def test_any_changed_byte_is_noticed(folder, name):
    path = folder / name
    sound = path.read_bytes()
    for place in range(0, len(sound), max(1, len(sound) // 40)):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        # White space may change; what the record says may not.
        try:
            assert load_probe(folder).record == json.loads(sound)
        except ProbeFileError as error:
            assert str(path) in str(error)
        else:
            assert name == "probe.json"
    path.write_bytes(sound[:-20])
    with pytest.raises(ProbeFileError):
        load_probe(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": "interp probe", "version": 9}', b"NaN"],
)
def test_what_is_no_record_is_said_to_be_none(folder, content):
    (folder / "probe.json").write_bytes(content)
    with pytest.raises(ProbeFileError, match=r"probe\.json"):
        load_probe(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"layer": "3"},
        {"layer": True},
        {"d_model": 25},
        {"d_model": None},
        {"threshold": {}},
        {"threshold": {"value": "high"}},
        {"model": []},
        {"sha256": "0" * 64},
        {"excess": None},
    ],
)
def test_a_record_that_does_not_fit_is_refused(folder, changed):
    rewrite(folder, **changed)
    with pytest.raises(ProbeFileError):
        load_probe(folder)


@pytest.mark.parametrize(
    "changed", [{"metrics": {"AUROC": 1}}, {"controls": {"tests": [1]}}, {"cells": {"harmful": 3}}]
)
def test_a_record_that_can_not_be_shown_says_so(folder, changed):
    rewrite(folder, **changed)
    with pytest.raises(ProbeFileError):
        summary(load_probe(folder))


@pytest.mark.parametrize(
    "tensors",
    [
        {"direction": torch.zeros(24)},
        {"direction": torch.zeros(24), "bias": torch.zeros(1)},
        {"direction": torch.zeros(24).double(), "bias": torch.zeros(())},
        {"direction": torch.full((24,), float("nan")), "bias": torch.zeros(())},
        {"direction": torch.zeros(8), "bias": torch.zeros(()), "hidden.bias": torch.zeros(8)},
    ],
)
def test_tensors_that_are_no_probe_are_refused(folder, tensors):
    path = folder / "probe.safetensors"
    save_file(tensors, path)
    rewrite(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ProbeFileError, match=r"probe\.safetensors"):
        load_probe(folder)


def test_what_is_not_there_is_said(tmp_path, folder):
    with pytest.raises(ProbeFileError, match=r"no probe\.json"):
        load_probe(tmp_path / "nowhere")
    (folder / "probe.safetensors").unlink()
    with pytest.raises(ProbeFileError, match=r"probe\.safetensors"):
        load_probe(folder)


def test_a_hidden_layer_is_scored(trained, tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden.weight": (8, 24), "hidden.bias": (8,), "direction": (8,), "bias": ()}
    numbers = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    loaded = load_probe(save_probe(Probe(trained.probe.record, numbers), tmp_path / "mlp"))
    states = torch.randn(5, 24, generator=generator)
    hidden = torch.relu(states @ numbers["hidden.weight"].T + numbers["hidden.bias"])
    torch.testing.assert_close(loaded.score(states), hidden @ numbers["direction"] + numbers["bias"])


def test_the_right_cache_is_taken_and_every_other_refused_by_name(trained, planted, tmp_path):
    trained.probe.require(planted, PLANTED, "t_post")
    other = noise_cache(tmp_path, name="someone else")
    for offered, layer, position, field in (
        (other, PLANTED, "t_post", "model.name"),
        (planted, 2, "t_post", "layer"),
        (planted, PLANTED, "t_inst", "position"),
    ):
        with pytest.raises(ModelMismatch) as caught:
            trained.probe.require(offered, layer, position)
        assert caught.value.field == field and field in str(caught.value)
    with pytest.raises(ModelMismatch, match="d_model"):
        trained.probe.score(torch.zeros(2, 23))


@pytest.mark.parametrize("field", [f for f in IDENTITY if f != "model.name"])
def test_a_model_that_differs_in_one_digest_is_refused_by_that(of_a_model, field):
    of_a_model.require(IDENTITY, PLANTED, "t_post")
    of_a_model.require({**IDENTITY, "model.name": "a copy in a folder"}, PLANTED, "t_post")
    with pytest.raises(ModelMismatch) as caught:
        of_a_model.require({**IDENTITY, field: "other"}, PLANTED, "t_post")
    assert caught.value.field == field


def test_a_cache_without_the_layer_is_refused(trained, planted, tmp_path):
    from interp.cache import ActivationCache
    from tests.probes.planted import planted_labels, planted_prompts, planted_states

    states = planted_states(planted_labels(), 1.0)[:, :2]
    fewer = ActivationCache.from_arrays({"t_post": states}, planted_prompts(), tmp_path, name="planted", layers=(0, 1))
    with pytest.raises(ModelMismatch) as caught:
        trained.probe.require(fewer, PLANTED, "t_post")
    assert caught.value.field == "layer" and caught.value.found == [0, 1]


def test_a_folder_may_be_moved(folder, tmp_path):
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert load_probe(moved).place.endswith("elsewhere")
