"""Trainings as they lie in their folders: what was trained, and how it is called in a table."""

from dataclasses import dataclass
from pathlib import Path

from interp.errors import UsageError
from interp.models.identity import TRAINED_LORA, TRAINED_PROJECTOR
from interp.models.projector_file import read_projector
from interp.study import ranges
from interp.tga.recipe import Recipe
from interp.tga.variants import VARIANTS

BEFORE = "before"
"""The model as it was before any training."""
LEARNING_RATE = Recipe().learning_rate
"""The default, which names leave out."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        folder: of the training; None for the model as it is.
        variant: such as paper; `BEFORE` for the model as it is.
        arm: how the scenes' harmful pictures took part.
        weight: factor on the guide loss; 1 where there is none.
        layers: guided; empty for all of them, and without a guide.
        steps: updates made.
        seed: of the order of the pictures.
        learning_rate: the highest.
        lora: whether the language model was trained too.
        retrieved_in_prompt: whether the retrieved text stood in the training prompt.
        guides: whether there was a guide whose gradient was let through.
        choices: everything that decided it but the seed, in words.
    """

    folder: Path | None
    variant: str = BEFORE
    arm: str = ""
    weight: float = 1.0
    layers: tuple[int, ...] = ()
    steps: int = 0
    seed: int = 0
    learning_rate: float = LEARNING_RATE
    lora: bool = False
    retrieved_in_prompt: bool = False
    guides: bool = False
    choices: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Its name without the seed: what trainings that differ by nothing else have in common."""
        return self.told()

    def told(self, *, without: str = "") -> str:
        """What was trained, in words; ``without`` leaves out the weight, the layers or the steps."""
        if self.folder is None:
            return BEFORE
        parts = {"variant": self.variant, "arm": self.arm, "steps": f"{self.steps} steps"}
        if self.learning_rate != LEARNING_RATE:
            parts["rate"] = f"rate {self.learning_rate:g}"
        if self.weight != 1:
            parts["weight"] = f"weight {self.weight:g}"
        if self.guides and self.layers:
            parts["layers"] = f"layers {ranges(self.layers)}"
        if self.variant in VARIANTS and self.retrieved_in_prompt != VARIANTS[self.variant].retrieved_in_prompt:
            parts["prompt"] = "retrieved text in the prompt" if self.retrieved_in_prompt else "no text in the prompt"
        if self.lora:
            parts["lora"] = "LoRA"
        return ", ".join(said for name, said in parts.items() if name != without)


def read_run(folder: Path) -> Run:
    """The training in a folder of `interp.tga.trainer.train`.

    Raises:
        UsageError: when the folder holds no finished training.
    """
    if not (folder / TRAINED_PROJECTOR).is_dir():
        raise UsageError(
            f"{folder}: holds no trained projector; give the --out folder of a finished `interp tga train`."
        )
    record, _ = read_projector(folder / TRAINED_PROJECTOR)
    try:
        about = record["about"]
        recipe = about["recipe"]
        guided = recipe["variant.form"] != "none"
        guides = guided and recipe["variant.has_gradient"] and recipe["variant.weight"] != 0
        chosen = {**recipe, "arm": about["arm"], "data": about["data"], "model": record["model"]}
        return Run(
            folder,
            variant=str(record["variant"]),
            arm=str(about["arm"]),
            weight=float(recipe["variant.weight"]) if guided else 1.0,
            layers=tuple(recipe["variant.layers"] or ()),
            steps=int(about["steps"]),
            seed=int(recipe["seed"]),
            learning_rate=float(recipe["learning_rate"]),
            lora=(folder / TRAINED_LORA).is_dir(),
            retrieved_in_prompt=bool(recipe["variant.retrieved_in_prompt"]),
            guides=bool(guides),
            choices=tuple(f"{name}: {value}" for name, value in sorted(chosen.items()) if name != "seed"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder}: its projector does not say how it was trained ({error}); train it again."
        ) from error
