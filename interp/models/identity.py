"""What a model is, by digests: two models are the same when every field of their identity is."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from torch import nn

from interp.errors import ModelError
from interp.models.pictures import tokenizer_of

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
TRAINED_PROJECTOR, TRAINED_LORA = "projector", "lora"
"""What the folder of a training of a projector holds; the second only where LoRA was trained too."""
VOLATILE_CONFIG = ("_name_or_path", "_model_name_or_path", "transformers_version")
VOLATILE_ADAPTER = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Digests of everything that decides a model's states; paths and host names are left out on purpose.

    Attributes:
        name: hub id or demo name; "local" for a folder, wherever it lies.
        revision: the resolved commit of a hub model, else "".
        weights: xxh3-128 over name, dtype, shape and bytes of every tensor.
        config: sha256 of the configuration without its volatile fields.
        tokenizer: sha256 of the tokenizer and processor files.
        chat_template: sha256 of the chat template, "" when there is none.
        adapter: digest of the LoRA adapter or the trained projector that is put on it, "" when there is none.
    """

    name: str
    revision: str
    weights: str
    config: str
    tokenizer: str
    chat_template: str
    adapter: str


def identify_folder(folder: Path, *, name: str, revision: str = "", adapter: Path | None = None) -> ModelIdentity:
    """The identity of a model folder, read from its files without loading the model.

    Raises:
        ModelError: when the folder has no config.json or no complete safetensors weights.
    """
    return ModelIdentity(
        name=name,
        revision=revision,
        weights=_digest_tensors(_stored_tensors(_weight_files(folder))),
        config=_digest_json(_lasting(read_config(folder), VOLATILE_CONFIG)),
        tokenizer=_digest_files(folder, TOKENIZER_FILES),
        chat_template=_digest_chat_template(folder),
        adapter="" if adapter is None else digest_adapter(adapter),
    )


def identify_module(model: Any, processor: Any, *, name: str = "local") -> ModelIdentity:
    """The identity of a model that lives in memory, from its parameters, configuration, and tokenizer or processor."""
    tokenizer = tokenizer_of(processor)
    template = processor.chat_template or tokenizer.chat_template or ""
    digest = _sha256(tokenizer.backend_tokenizer.to_str().encode())
    if tokenizer is not processor:
        digest = _digest_json([digest, processor.to_dict()])
    return ModelIdentity(
        name=name,
        revision="",
        weights=_digest_tensors(_live_tensors(model)),
        config=_digest_json(_lasting(model.config.to_dict(), VOLATILE_CONFIG)),
        tokenizer=digest,
        chat_template=_sha256(str(template).encode()) if template else "",
        adapter="",
    )


def identify_around(model: Any, part: str) -> dict[str, str]:
    """What a model in memory is but for one part: class, configuration, and weights without those of the part.

    The dtype that it is loaded in does not count, so weights are taken in float32.

    Args:
        model: any.
        part: the name of the module whose weights are left out, wherever in the model it stands.
    """
    parts = ((n, t) for n, t in model.state_dict().items() if part not in n.split("."))
    return {
        "architecture": type(model).__name__,
        "config": _digest_json(
            _lasting(model.config.to_dict(), (*VOLATILE_CONFIG, "architectures", "dtype", "torch_dtype"))
        ),
        "weights": _digest_tensors(_stored(name, tensor.float()) for name, tensor in parts),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: has no config.json, so it is not a model folder in Hugging Face format.")
    return _read_json(path)


def digest_adapter(folder: Path) -> str:
    """Digest of a LoRA folder, or of the folder of a training: its projector, and LoRA where there is one.

    Raises:
        ModelError: when the folder is neither.
    """
    if not (folder / TRAINED_PROJECTOR).is_dir():
        return _digest_lora(folder)
    tensors = folder / TRAINED_PROJECTOR / "projector.safetensors"
    if not tensors.is_file():
        raise ModelError(f"{tensors.parent}: has no {tensors.name}; train the projector again.")
    lora = folder / TRAINED_LORA
    return _digest_tensors(_stored_tensors([tensors])) + (_digest_lora(lora) if lora.is_dir() else "")


def _digest_lora(folder: Path) -> str:
    """Of its tensors and its configuration without the fields that change nothing."""
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not weights.is_file() or not settings.is_file():
        raise ModelError(f"{folder}: not a LoRA folder; it needs adapter_config.json and adapter_model.safetensors.")
    config = _lasting(_read_json(settings), VOLATILE_ADAPTER)
    if isinstance(config.get("target_modules"), list):  # peft writes them in any order
        config["target_modules"].sort()
    return _digest_tensors(_stored_tensors([weights])) + _digest_json(config)[:16]


def _lasting(config: dict[Any, Any], volatile: tuple[str, ...]) -> dict[Any, Any]:
    """A configuration, and those nested in it, without the fields that say where and with what it was written."""
    return {k: _lasting(v, volatile) if isinstance(v, dict) else v for k, v in config.items() if k not in volatile}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: is not valid JSON ({error}); fetch the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds no JSON object; fetch the model again.")
    return value


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: the single one before those of an index, for some folders hold both."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise ModelError(
            f"{folder}: has neither model.safetensors nor its index; convert the model, other formats, pickled "
            "ones among them, are not read."
        )
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index}: lists no weights; fetch the model again.")
    files = sorted({folder / name for name in names.values()})
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelError(f"{folder}: lacks {', '.join(missing)} of its weights; fetch the model again.")
    return files


Stored = tuple[str, str, list[int], bytes | memoryview]


def _stored_tensors(files: Iterable[Path]) -> Iterator[Stored]:
    """Name, dtype, shape and bytes of every tensor in safetensors files, one at a time."""
    for path in files:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = _tensor_header(path, file.read(size) if size < path.stat().st_size else b"")
            for name, entry in sorted(header.items()):
                start, end = entry["data_offsets"]
                file.seek(8 + size + start)
                data = file.read(end - start)
                if len(data) < end - start:
                    raise ModelError(f"{path}: ends in the middle of {name}; fetch the model again.")
                yield name, entry["dtype"], entry["shape"], data


def _tensor_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: is not a complete safetensors file; fetch the model again.") from error
    header.pop("__metadata__", None)
    return header


def _live_tensors(model: nn.Module) -> Iterator[Stored]:
    for name, tensor in model.state_dict().items():
        yield _stored(name, tensor)


def _stored(name: str, tensor: Any) -> Stored:
    import torch

    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return name, str(tensor.dtype), list(tensor.shape), memoryview(data)


def _digest_tensors(tensors: Iterable[Stored]) -> str:
    """Independent of how tensors are spread over files: digests of single tensors, sorted by name."""
    single = sorted(f"{name}|{dtype}|{shape}|{xxhash.xxh3_128_hexdigest(data)}" for name, dtype, shape, data in tensors)
    return xxhash.xxh3_128_hexdigest("\n".join(single).encode())


def _digest_chat_template(folder: Path) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return _sha256(jinja.read_bytes())
    # What a processor has for itself comes before the tokenizer's own.
    named = [folder / name for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json")]
    template = next((t for path in named if path.is_file() and (t := _read_json(path).get("chat_template"))), None)
    return _digest_json(template) if template else ""


def _digest_files(folder: Path, names: Iterable[str]) -> str:
    present = [(n, _sha256((folder / n).read_bytes())) for n in names if (folder / n).is_file()]
    return _digest_json(present)


def _digest_json(value: Any) -> str:
    return _sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
