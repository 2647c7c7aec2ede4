"""LoRA on the language model of a vision-language model, trained beside its projector."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.errors import ModelError


@dataclass(frozen=True, slots=True)
class Lora:
    """What is adapted, and how.

    Attributes:
        rank: of every update.
        alpha: updates are scaled by alpha / rank.
        targets: names of the linear modules of a block.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")


def add_lora(model: Any, lora: Lora, *, seed: int = 0) -> Any:
    """Puts LoRA layers into the decoder of a model, in place; they begin as no change at all.

    Args:
        model: of transformers; its other parameters are frozen.
        lora: what is adapted.
        seed: of the random halves of the updates; the random state of the process stays as it was.

    Returns:
        The model behind peft, for `write_lora` and `lora_parameters`; ``model`` runs the same layers.

    Raises:
        ModelError: when no module has a name of ``targets``.
    """
    from peft import LoraConfig, get_peft_model

    decoder = model.get_decoder()
    inside = next(name for name, module in model.named_modules() if module is decoder)
    wanted = "|".join(map(re.escape, lora.targets))
    # Dropout would make two runs differ by where their random numbers stand.
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=rf"{re.escape(inside)}\..*\.({wanted})"
    )
    try:
        with torch.random.fork_rng(devices=[]), quiet_peft():
            torch.manual_seed(seed)
            return get_peft_model(model, config).eval()
    except ValueError as error:
        raise ModelError(f"{type(model).__name__}: no LoRA can be put on {', '.join(lora.targets)}: {error}") from error


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silences what peft warns of and nobody who loads or trains a model can act on.

    It asks transformers for an attribute by its old name, and says that an adapter does not cover the model.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        yield


def lora_parameters(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the LoRA layers, by name."""
    return {name: p for name, p in adapted.named_parameters() if "lora_" in name}


def write_lora(adapted: Any, folder: Path, *, base: str) -> Path:
    """Writes a LoRA folder that ``--adapter`` reads.

    Args:
        adapted: what `add_lora` returned.
        folder: where.
        base: the name of the model that it belongs to; never a path.
    """
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    return folder


def frozen_but(model: nn.Module, trained: Sequence[nn.Parameter]) -> None:
    """Lets no parameter but the ones given have a gradient."""
    kept = set(map(id, trained))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in kept)
