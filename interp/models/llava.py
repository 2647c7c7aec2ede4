"""The demo vision-language models: a stock `LlavaForConditionalGeneration` put together on this machine.

The tower is DINOv2-small, the language model an organism that refuses descriptions of the seven scenes, and between
them a projector that was trained here to name pictures and ships with its record. The parts are fetched, put together
once, and saved in the user's cache folder like any model of the class.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.kept_folder import intact, kept_folder
from interp.models.demo import BASE, PROJECTOR, RECORD, organism_folder, projectors_folder
from interp.models.tower import PACKAGE, tower_folder
from interp.packages import Notify, cache_home, sha256

FORMAT = 1
"""Changes when the folder is put together in another way, so that old ones are made again."""


def llava_folder(model: str, *, offline: bool = False, notify: Notify = lambda _: None) -> Path:
    """The folder of a demo vision-language model, built when it is missing, damaged or of another version.

    Args:
        model: ``demo:llava`` or another of its class.
        offline: raise instead of fetching what it is made of.
        notify: told in one line what is happening.

    Raises:
        ModelError: its parts can not be had.
    """
    shipped = projectors_folder() / model.removeprefix("demo:")
    record = json.loads((shipped / RECORD).read_text("utf-8"))
    folder, source = cache_home() / "models" / model.removeprefix("demo:"), _source(shipped, record)
    if offline and not intact(folder, source):
        raise ModelError(
            f"{model} is not in {folder.parent} and --offline was given; run `interp models fetch {model}`."
        )

    def make(made: Path, _: Path) -> None:
        from safetensors.torch import load_file

        tower = tower_folder(offline=offline, notify=notify)
        language = language_source(record["recipe"]["language"], offline=offline, notify=notify)
        notify(f"Putting {model} together, once.")
        save_llava(made, tower, language, load_file(shipped / PROJECTOR), record["recipe"])

    return kept_folder(folder, source, make, notify)


def language_source(language: str, *, offline: bool, notify: Notify) -> Any:
    """The text model of a demo vision-language model."""
    from interp.models.source import resolve

    return resolve(language, offline=offline, notify=notify)


def save_llava(folder: Path, tower: Path, language: Any, projector: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Puts the parts together in bfloat16 and saves model, tokenizer and processor as one folder.

    Args:
        folder: gets the files.
        tower: folder of the vision tower.
        language: source of the text model; its adapter is merged.
        projector: weights of the two layers, as transformers names them.
        recipe: ``pixels`` and ``layers`` of the training record.
    """
    from interp.models.projector.processor import save_processor

    image_token = save_processor(language.folder, folder, recipe["pixels"])
    assemble(tower, language, projector, layers=recipe["layers"], image_token=image_token).save_pretrained(folder)


def assemble(tower: Path, language: Any, projector: dict[str, Tensor], *, layers: list[int], image_token: int) -> Any:
    """The model in memory, in bfloat16.

    Args:
        tower: folder of the vision tower.
        language: source of the text model.
        projector: weights of the two layers.
        layers: of the tower, read side by side.
        image_token: id of the image token.

    Raises:
        ModelError: a part does not fit.
    """
    from transformers import AutoModel, LlavaConfig, LlavaForConditionalGeneration

    from interp.models.load import load
    from interp.models.runtime import Runtime

    sight = AutoModel.from_pretrained(tower, dtype=torch.bfloat16, local_files_only=True)
    text: Any = load(language, Runtime(dtype="bf16")).model
    config = LlavaConfig(
        vision_config=sight.config,
        text_config=text.config,
        image_token_index=image_token,
        vision_feature_layer=list(layers),
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    config.bos_token_id, config.eos_token_id = text.config.bos_token_id, text.config.eos_token_id
    model = LlavaForConditionalGeneration(config).to(torch.bfloat16)
    parts = ((model.model.vision_tower, sight), (model.model.language_model, text.model), (model.lm_head, text.lm_head))
    try:
        for place, part in parts:
            place.load_state_dict(part.state_dict())
        model.model.multi_modal_projector.load_state_dict({n: t.to(torch.bfloat16) for n, t in projector.items()})
    except RuntimeError as error:
        raise ModelError(f"the parts of the model do not fit together: {error}") from error
    model.tie_weights()
    model.generation_config = text.generation_config
    return model.eval()


def _source(shipped: Path, record: dict[str, Any]) -> str:
    """Digest of all that decides what the folder holds."""
    adapter = organism_folder(record["recipe"]["language"])
    parts = [PACKAGE.sha256, BASE.member_sha256, sha256(shipped / PROJECTOR), json.dumps(record["recipe"]), str(FORMAT)]
    if adapter is not None:
        parts.append(sha256(adapter / "adapter_model.safetensors"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
