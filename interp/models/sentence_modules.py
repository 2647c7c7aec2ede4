"""How a sentence-transformers folder makes one vector of a text's states: its module list, read and applied."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
OTHER_POOLINGS = ("pooling_mode_weightedmean_tokens",)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"Identity": lambda x: x, "Tanh": torch.tanh}


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """What stands in a sentence-transformers folder beside the transformer.

    Attributes:
        transformer: the folder of the transformer itself.
        pooling: cls, mean, max, mean_sqrt_len or lasttoken.
        max_tokens: where texts are cut; None for the tokenizer's own limit.
        lower_case: texts are lower-cased first.
        prefix: put before every text.
        dense: folders of dense layers after the pooling, in order.
    """

    transformer: Path
    pooling: str = "mean"
    max_tokens: int | None = None
    lower_case: bool = False
    prefix: str = ""
    dense: tuple[Path, ...] = ()

    def record(self) -> dict[str, Any]:
        """What of it decides an embedding, as JSON; the dense layers are told apart by their bytes."""
        layers = [(_json(p / "config.json"), (p / "model.safetensors").read_bytes().hex()) for p in self.dense]
        return {k: v for k, v in asdict(self).items() if k not in ("transformer", "dense")} | {"dense": layers}


def read_modules(folder: Path) -> SentenceModules:
    """Reads modules.json and what it names; without it the defaults: mean over the tokens, the whole context.

    Raises:
        ModelError: for a module or a pooling that is not known here, which would change the vectors silently.
    """
    if not (folder / "modules.json").is_file():
        return SentenceModules(folder)
    kinds = [(str(m["type"]).rpartition(".")[2], folder / m["path"]) for m in _json(folder / "modules.json")]
    odd = [kind for kind, _ in kinds if kind not in ("Transformer", "CLIPModel", "Pooling", "Dense", "Normalize")]
    if odd or kinds[0][0] not in ("Transformer", "CLIPModel"):
        raise ModelError(
            f"{folder / 'modules.json'}: {', '.join(k for k, _ in kinds)} can not be followed here; "
            "known are a Transformer or CLIPModel, then Pooling, Dense and Normalize."
        )
    settings = _json(folder / "sentence_bert_config.json", optional=True)
    prompts = _json(folder / "config_sentence_transformers.json", optional=True)
    pooling = next((_pooling(path / "config.json") for kind, path in kinds if kind == "Pooling"), "mean")
    return SentenceModules(
        transformer=kinds[0][1],
        pooling=pooling,
        max_tokens=settings.get("max_seq_length"),
        lower_case=bool(settings.get("do_lower_case")),
        prefix=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
        dense=tuple(path for kind, path in kinds if kind == "Dense"),
    )


def pool(states: Float[Tensor, "text token d"], mask: Int[Tensor, "text token"], how: str) -> Float[Tensor, "text d"]:
    """One vector per text, padding not counted.

    Args:
        states: last hidden states.
        mask: 1 for a token, 0 for padding, which may be on either side; every text has a token.
        how: one of `POOLINGS`.
    """
    weights = mask[..., None].to(states.dtype)
    rows, places = torch.arange(len(mask)), torch.arange(mask.shape[1])
    if how == "cls":
        return states[rows, mask.argmax(1).cpu()]
    if how == "lasttoken":
        return states[rows, (mask.cpu() * places).argmax(1)]
    if how == "max":
        return states.masked_fill(weights == 0, -torch.inf).amax(1)
    total = (states * weights).sum(1)
    return total / (weights.sum(1) if how == "mean" else weights.sum(1).sqrt())


def apply_dense(vectors: Float[Tensor, "text d"], folder: Path) -> Float[Tensor, "text e"]:
    """A dense layer after the pooling.

    Raises:
        ModelError: for an activation that is not known here, or without safetensors weights.
    """
    from safetensors.torch import load_file

    activation = str(_json(folder / "config.json").get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS or not (folder / "model.safetensors").is_file():
        raise ModelError(f"{folder}: a dense layer with {activation} and safetensors weights can not be made of it.")
    tensors = load_file(folder / "model.safetensors", device=str(vectors.device))
    out = torch.nn.functional.linear(vectors, tensors["linear.weight"].float(), tensors.get("linear.bias"))
    return ACTIVATIONS[activation](out)


def _pooling(path: Path) -> str:
    config = _json(path)
    chosen = [name for name, key in POOLINGS.items() if config.get(key) or config.get("pooling_mode") == name]
    if len(chosen) != 1 or any(config.get(key) for key in OTHER_POOLINGS) or config.get("include_prompt") is False:
        raise ModelError(f"{path}: its pooling is not one of {', '.join(POOLINGS)}; it can not be followed here.")
    return chosen[0]


def _json(path: Path, *, optional: bool = False) -> Any:
    if optional and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can not be read ({error}); fetch the model again.") from error
    if not isinstance(value, Mapping | list):
        raise ModelError(f"{path}: holds neither an object nor a list; fetch the model again.")
    return value
