import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from interp.errors import ModelError
from interp.models.source import ModelSource, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A hub whose every model is the tiny one; what was asked of it."""
    asked: list[tuple[str, dict[str, Any]]] = []
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.parent.mkdir()
    snapshot.symlink_to(tiny_folder, target_is_directory=True)

    def download(name: str, **how: Any) -> str:
        asked.append((name, how))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def failing(monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_a_folder(tiny_folder: Path, no_socket: None) -> None:
    source = resolve(str(tiny_folder))
    assert source == ModelSource("local", tiny_folder)
    assert source.identify().name == "local"


def test_a_folder_of_the_working_directory_or_home(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").symlink_to(tiny_folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("org/model").name == resolve("./org/model").name == resolve("~/org/model").name == "local"
    assert resolve("org/model").identify() == resolve("~/org/model").identify()


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(model: str, no_socket: None) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        resolve(model)


def test_a_hub_model(hub: list[tuple[str, dict[str, Any]]], tiny_folder: Path) -> None:
    source = resolve("org/model", revision="main")
    assert (source.name, source.revision, source.remote_code) == ("org/model", COMMIT, False)
    name, how = hub[0]
    assert (name, how["revision"], how["local_files_only"]) == ("org/model", "main", False)
    assert "*.safetensors" in how["allow_patterns"]
    assert "consolidated*.safetensors" in how["ignore_patterns"]  # Mistral's second copy of the weights
    assert not any(p.endswith((".py", ".bin", ".pt", ".pth", ".pkl")) for p in how["allow_patterns"])
    identity = source.identify()
    assert (identity.name, identity.revision) == ("org/model", COMMIT)
    assert identity.weights == resolve(str(tiny_folder)).identify().weights


def test_offline_asks_for_what_is_on_disk(hub: list[tuple[str, dict[str, Any]]]) -> None:
    resolve("org/model", offline=True)
    assert hub[0][1]["local_files_only"] is True


@pytest.mark.parametrize("model", ["org/model", "gpt2"])
def test_a_hub_model_that_is_not_on_disk(
    model: str, no_socket: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=f"{model}: it is not on this disk and --offline.*give a folder"):
        resolve(model, offline=True)


def test_a_hub_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda: LocalEntryNotFoundError("no network"))
    with pytest.raises(ModelError, match=r"org/model: the hub can not be reached; give a folder"):
        resolve("org/model")
    failing(monkeypatch, lambda: ConnectionError("reset"))
    with pytest.raises(ModelError, match=r"org/model: could not be fetched from the hub: reset"):
        resolve("org/model")


def test_a_hub_model_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/org/model"))
    failing(monkeypatch, lambda: RepositoryNotFoundError("404: not found", response=response))
    with pytest.raises(ModelError, match=r"org/model: could not be fetched.*not found"):
        resolve("org/model")


@pytest.mark.parametrize("model", ["not a name", "a--b/..", "", "org/"])
def test_what_is_no_name_at_all(model: str, no_socket: None) -> None:
    with pytest.raises(ModelError):
        resolve(model, offline=True)


def test_remote_code_only_for_the_model_named(hub: list[tuple[str, dict[str, Any]]], tiny_folder: Path) -> None:
    assert resolve("org/model", trust_remote_code="org/model").remote_code
    assert "*.py" in hub[0][1]["allow_patterns"]
    assert resolve(str(tiny_folder), trust_remote_code=str(tiny_folder)).remote_code
    assert not resolve(str(tiny_folder)).remote_code
    for other in ("org/other", "", "true"):
        with pytest.raises(ModelError, match="--trust-remote-code names"):
            resolve("org/model", trust_remote_code=other)
    assert len(hub) == 1


def test_a_revision_is_for_hub_models(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="--revision main is for hub models"):
        resolve(str(tiny_folder), revision="main")


def test_an_adapter_that_is_not_there(tiny_folder: Path, tmp_path: Path) -> None:
    assert resolve(str(tiny_folder), adapter=tmp_path).adapter == tmp_path
    with pytest.raises(ModelError, match="no such folder; --adapter"):
        resolve(str(tiny_folder), adapter=tmp_path / "nowhere")
