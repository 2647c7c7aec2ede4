"""How a projector is trained: one record, which a run is resumed by and known by."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from interp.errors import UsageError
from interp.models.lora import Lora
from interp.tga.variants import PAPER, Variant

COUNTS = ("batch", "micro_batch", "audit_every", "checkpoint_every")
COUNTS_OR_NONE = ("steps", "seed", "evaluate_every", "patience")
LARGEST = 1e6
"""Of any rate, decay or norm: more is a slip of the pen, and overflows."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice of a training; all of them decide its bits.

    Learning rate, warm-up and schedule are those of the released pretraining script (1e-3, 3 %, cosine, one epoch).

    Attributes:
        variant: what the guide is and what stands in the prompt.
        epochs: how often every picture is seen; counts when ``steps`` is 0.
        steps: updates in all; 0 to count them from ``epochs``.
        batch: pictures per update.
        micro_batch: pictures run together; the gradients of a batch are accumulated, which changes rounding alone.
        learning_rate: the highest, of AdamW.
        warmup: share of the steps in which it rises from 0; afterwards it falls to 0 along a cosine.
        weight_decay: of AdamW.
        clip: largest Euclidean norm of the gradient.
        seed: of the order of the pictures and of LoRA.
        audit_every: steps between gradient audits; the first step is always audited.
        evaluate_every: steps between measurements on the validation pictures; 0 for the start and end alone.
        patience: measurements without improvement after which training stops and the best projector is kept; 0 never.
        checkpoint_every: steps between checkpoints.
        lora: what of the language model is trained too; None for nothing.
    """

    variant: Variant = PAPER
    epochs: float = 1.0
    steps: int = 0
    batch: int = 16
    micro_batch: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    audit_every: int = 50
    evaluate_every: int = 100
    patience: int = 0
    checkpoint_every: int = 100
    lora: Lora | None = field(default=None)

    def __post_init__(self) -> None:
        for names, least in ((COUNTS, 1), (COUNTS_OR_NONE, 0)):
            for name in names:
                value = getattr(self, name)
                _require(name, value, value >= least, f"at least {least}")
        for name in ("learning_rate", "clip"):
            _require(name, getattr(self, name), 0 < getattr(self, name) <= LARGEST, f"above 0, at most {LARGEST:g}")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay <= LARGEST, f"0 to {LARGEST:g}")
        _require("warmup", self.warmup, 0 <= self.warmup < 1, "a share of the steps, at least 0 and below 1")
        _require("epochs", self.epochs, 0 <= self.epochs < math.inf, "a number, at least 0")
        if not self.steps and not self.epochs:
            raise UsageError("0 steps and 0 epochs train nothing; give either.")
        if self.patience and not self.evaluate_every:
            raise UsageError("patience counts measurements; say how many steps lie between them (--evaluate-every).")

    def total_steps(self, pictures: int) -> int:
        """How many updates a training on so many pictures takes."""
        return self.steps or math.ceil(self.epochs * pictures / self.batch)

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = math.ceil(self.warmup * total)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    def record(self) -> dict[str, Any]:
        """Every choice by name, those of the variant and of LoRA too, as JSON values."""
        own = {k: v for k, v in asdict(self).items() if k not in ("variant", "lora")}
        layers = self.variant.layers
        chosen = {**asdict(self.variant), "layers": None if layers is None else list(layers)}
        lora = None if self.lora is None else {**asdict(self.lora), "targets": list(self.lora.targets)}
        return {**own, "lora": lora, **{f"variant.{k}": v for k, v in chosen.items()}}


def _require(name: str, value: object, holds: bool, needed: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {needed}.")
