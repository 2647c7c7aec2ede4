"""From what the user calls a model (hub id, folder, demo name) to a folder with its files."""

from dataclasses import dataclass
from pathlib import Path

from interp.errors import ModelError
from interp.models.identity import ModelIdentity, identify_folder
from interp.packages import Notify

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
SECOND_COPIES = ["consolidated*.safetensors", "original/*"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model on this disk.

    Attributes:
        name: hub id or demo name; "local" for a folder.
        folder: holds config.json, weights and tokenizer.
        revision: the resolved commit of a hub model, else "".
        adapter: a LoRA folder to merge into the weights, or the folder of a training of its projector; or None.
        remote_code: run the model's own Python files; only when the user named this model.
    """

    name: str
    folder: Path
    revision: str = ""
    adapter: Path | None = None
    remote_code: bool = False

    def identify(self) -> ModelIdentity:
        """The digests of the files; the model is not loaded."""
        return identify_folder(self.folder, name=self.name, revision=self.revision, adapter=self.adapter)


def resolve(
    model: str,
    *,
    revision: str | None = None,
    adapter: Path | None = None,
    offline: bool = False,
    trust_remote_code: str | None = None,
    notify: Notify = lambda _: None,
) -> ModelSource:
    """Finds a model, fetching it when it is not on this disk yet.

    Args:
        model: ``demo:NAME``, a folder, or a hub id such as ``Qwen/Qwen2.5-0.5B-Instruct``.
        revision: branch, tag or commit of a hub model.
        adapter: a LoRA folder on top of the model, or the folder of a training of its projector.
        offline: never use the network.
        trust_remote_code: the model's own name, to allow its Python files to run.
        notify: told in one line what is being fetched.

    Raises:
        ModelError: when the model can not be found or fetched, or when the name given for its code is another.
    """
    if not model:
        raise ModelError("no model was named; give a hub id, a folder or demo:base.")
    if trust_remote_code not in (None, model):
        raise ModelError(f"--trust-remote-code names {trust_remote_code!r}, but the model is {model!r}.")
    if adapter is not None and not adapter.is_dir():
        raise ModelError(f"{adapter}: no such folder; --adapter wants a LoRA folder or that of a training.")
    if model.startswith("demo:"):
        return _demo(model, revision, adapter, offline, notify)
    if Path(model).expanduser().is_dir():
        _no_revision(model, revision)
        return ModelSource("local", Path(model).expanduser(), adapter=adapter, remote_code=bool(trust_remote_code))
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"{model}: no such folder.")
    folder = _hub_folder(model, revision, offline, remote_code=bool(trust_remote_code))
    return ModelSource(model, folder, folder.name, adapter, bool(trust_remote_code))


def _demo(model: str, revision: str | None, adapter: Path | None, offline: bool, notify: Notify) -> ModelSource:
    from interp.models import demo

    _no_revision(model, revision)
    if adapter is not None and model not in ("demo:base", *demo.llava_names()):
        raise ModelError(f"{model} has an adapter of its own; put --adapter on demo:base.")
    organism = demo.organism_folder(model)
    if model in demo.llava_names():
        from interp.models.llava import llava_folder

        return ModelSource(model, llava_folder(model, offline=offline, notify=notify), adapter=adapter)
    return ModelSource(model, demo.base_folder(offline=offline, notify=notify), adapter=adapter or organism)


def _no_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(f"--revision {revision} is for hub models; {model} has none.")


def _hub_folder(model: str, revision: str | None, offline: bool, *, remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*PATTERNS, *(["*.py"] if remote_code else [])]
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=SECOND_COPIES,
            local_files_only=offline,
        )
        return Path(folder)
    except HFValidationError as error:
        raise ModelError(f"{model}: is neither a folder, a hub id nor a demo name ({error}).") from error
    except LocalEntryNotFoundError as error:
        why = "it is not on this disk and --offline was given" if offline else "the hub can not be reached"
        raise ModelError(f"{model}: {why}; give a folder, or fetch the model where there is a network.") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{model}: could not be fetched from the hub: {error}") from error
