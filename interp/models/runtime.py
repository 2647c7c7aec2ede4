"""How a model is run: backend, dtype, device and attention."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from interp.errors import ModelError
from interp.models.identity import read_config
from interp.models.source import ModelSource

BACKENDS = ("hooks", "transformer_lens", "nnsight")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
SPELLINGS = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a model is run; every field changes the bits of its states.

    Attributes:
        backend: hooks, transformer_lens or nnsight.
        dtype: bf16, fp32, fp16, or auto for the checkpoint's own.
        device: cpu, cuda, cuda:1, mps, or auto for the best present.
        attention: sdpa, eager, flash_attention_2, or auto for transformers' choice.
    """

    backend: str = "hooks"
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"

    def resolve(self, source: ModelSource) -> "Runtime":
        """The same with dtype and device decided; the model is not loaded.

        Raises:
            ModelError: for an unknown backend or dtype, for a device that is unknown or not here, and for an
                attention that the backend does not have.
        """
        if self.backend not in BACKENDS:
            raise ModelError(f"unknown backend {self.backend!r}; choose one of {', '.join(BACKENDS)}.")
        if self.backend == "transformer_lens" and self.attention not in ("auto", "eager"):
            raise ModelError(
                f"TransformerLens has no attention {self.attention!r}, only eager; choose that or another backend."
            )
        dtype = _checkpoint_dtype(source) if self.dtype == "auto" else SPELLINGS.get(self.dtype, self.dtype)
        if dtype not in DTYPES:
            raise ModelError(f"unknown dtype {dtype!r}; choose auto or one of {', '.join(DTYPES)}.")
        device = _best_device() if self.device == "auto" else _present(self.device)
        return replace(self, dtype=dtype, device=device)

    @classmethod
    def of_module(cls, model: nn.Module, *, backend: str = "hooks") -> "Runtime":
        """The runtime of a model that is already in memory."""
        parameter = next(model.parameters())
        dtype = SPELLINGS[str(parameter.dtype).removeprefix("torch.")]
        attention = getattr(model.config, "_attn_implementation", None) or "auto"
        return cls(backend, dtype, str(parameter.device), attention)


def _checkpoint_dtype(source: ModelSource) -> str:
    config = read_config(source.folder)
    nested = config.get("text_config") or {}
    found = next((c[k] for c in (config, nested) for k in ("dtype", "torch_dtype") if c.get(k)), "float32")
    return SPELLINGS.get(str(found).removeprefix("torch."), str(found))


def _present(name: str) -> str:
    """The name of a device, when this machine has it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # which is unknown here, too
    index = device.index or 0
    present = {
        "cpu": index == 0,
        "cuda": torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available() and index == 0,
    }
    if device.type not in present:
        raise ModelError(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:N or mps.")
    if not present[device.type]:
        raise ModelError(f"device {name!r} is not here; choose auto, cpu or one that `nvidia-smi` lists.")
    return name


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
