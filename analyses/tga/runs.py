"""Trainings as they lie in their folders: what was trained, and how it is called in a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interp.errors import UsageError
from interp.models.identity import TRAINED_LORA, TRAINED_PROJECTOR
from interp.models.projector_file import read_projector
from interp.prompts.pairs import Pair
from interp.study import ranges
from interp.tga.assembly import picture_of
from interp.tga.preparation import CAPTION
from interp.tga.recipe import Recipe
from interp.tga.variants import VARIANTS

BEFORE = "before"
"""The model as it was before any training."""
LEARNING_RATE, BATCH = Recipe().learning_rate, Recipe().batch
"""The defaults, which names leave out."""
GUIDE = "variant."
"""What choices of the variant begin with; those that the samples hold as well are `SAMPLES`."""
SAMPLES, MODEL = "samples", "model"
RETRIEVAL = ("data.index", "data.retrieved_by")
"""Choices that say nothing of a training without a text."""
DOSED = {"weight": "variant.weight", "layers": "variant.layers", "steps": "steps"}
CHANGE_NOTHING = ("seed", "epochs", "audit_every", "checkpoint_every")
"""Of a recipe: what is looked at and kept, the epochs that its steps were counted from, and the seed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        folder: of the training; None for the model as it is.
        variant: such as paper; `BEFORE` for the model as it is.
        arm: how the scenes' harmful pictures took part.
        weight: factor on the guide loss; 1 where there is none.
        layers: guided; empty for all of them, and without a guide.
        steps: updates planned; with patience fewer may have been made.
        batch: pictures per update.
        patience: measurements without improvement after which it stopped; 0 for all steps.
        seed: of the order of the pictures.
        learning_rate: the highest.
        lora: whether the language model was trained too.
        retrieved_in_prompt: whether the retrieved text stood in the training prompt.
        retrieved_by: what a text was retrieved by: the caption, or image states of a layer.
        guides: whether there was a guide whose gradient was let through.
        choices: everything that decided it but the seed, by name, in words.
        trained_on: the pictures, as `interp.tga.assembly.picture_of` names them.
    """

    folder: Path | None
    variant: str = BEFORE
    arm: str = ""
    weight: float = 1.0
    layers: tuple[int, ...] = ()
    steps: int = 0
    batch: int = BATCH
    patience: int = 0
    seed: int = 0
    learning_rate: float = LEARNING_RATE
    lora: bool = False
    retrieved_in_prompt: bool = False
    retrieved_by: str = CAPTION
    guides: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    trained_on: frozenset[str] = frozenset()

    @property
    def group(self) -> str:
        """Its name without the seed: what trainings that differ by nothing else have in common."""
        return self.told()

    def surroundings(self, *left_out: str) -> dict[str, str]:
        """What a training with another guide must share with it to be held against it: all choices but the guide's."""
        return {k: v for k, v in self.choices.items() if not k.startswith(GUIDE) and k not in (SAMPLES, *left_out)}

    def besides(self, dose: str) -> dict[str, str]:
        """What trainings of one dose curve share: all choices but the weight, the layers or the steps."""
        return {k: v for k, v in self.choices.items() if k != DOSED[dose]}

    def told(self, *, without: str = "") -> str:
        """What was trained, in words; ``without`` leaves out the weight, the layers or the steps."""
        if self.folder is None:
            return BEFORE
        parts = {"variant": self.variant, "arm": self.arm, "steps": f"{self.steps} steps"}
        if self.patience:
            parts["patience"] = f"patience {self.patience}"
        if self.batch != BATCH:
            parts["batch"] = f"batches of {self.batch}"
        if self.learning_rate != LEARNING_RATE:
            parts["rate"] = f"rate {self.learning_rate:g}"
        if self.weight != 1:
            parts["weight"] = f"weight {self.weight:g}"
        if self.guides and self.layers:
            parts["layers"] = f"layers {ranges(self.layers)}"
        if self.variant in VARIANTS and self.retrieved_in_prompt != VARIANTS[self.variant].retrieved_in_prompt:
            parts["prompt"] = "retrieved text in the prompt" if self.retrieved_in_prompt else "no text in the prompt"
        if self.retrieved_by != CAPTION and (self.guides or self.retrieved_in_prompt):
            parts["by"] = f"retrieved by {self.retrieved_by}"
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
        data = {f"data.{name}": digest for name, digest in about["data"].items()}
        decides = {k: v for k, v in recipe.items() if k not in CHANGE_NOTHING}
        if not recipe["patience"]:
            del decides["evaluate_every"]
        of_data = {"arm": about["arm"], SAMPLES: about["samples"], MODEL: record["model"]}
        chosen = {**decides, **data, **of_data, "steps": about["steps"]}
        return Run(
            folder,
            variant=str(record["variant"]),
            arm=str(about["arm"]),
            weight=float(recipe["variant.weight"]) if guided else 1.0,
            layers=tuple(recipe["variant.layers"] or ()),
            steps=int(about["steps"]),
            batch=int(recipe["batch"]),
            patience=int(recipe["patience"]),
            seed=int(recipe["seed"]),
            learning_rate=float(recipe["learning_rate"]),
            lora=(folder / TRAINED_LORA).is_dir(),
            retrieved_in_prompt=bool(recipe["variant.retrieved_in_prompt"]),
            retrieved_by=str(about["data"].get("retrieved_by", CAPTION)),
            guides=bool(guides),
            choices={name: str(value) for name, value in sorted(chosen.items())},
            trained_on=frozenset(map(str, about["trained_on"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{folder}: its projector does not say how it was trained ({error}); train it again."
        ) from error


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuses trainings of different models, and those of one group that differ in more than their seed, or in nothing.

    Raises:
        UsageError: naming folders, and choices or seeds.
    """
    trained = [run for run in runs if run.folder]
    for run in trained[1:]:
        if run.choices.get(MODEL) != trained[0].choices.get(MODEL):
            raise UsageError(f"{trained[0].folder} and {run.folder} are of different models; compare those of one.")
    for name in dict.fromkeys(run.group for run in runs):
        first, *others = (run for run in runs if run.group == name)
        for other in others:
            differing = [k for k in first.choices if first.choices[k] != other.choices.get(k)]
            if differing:
                said = "; ".join(f"{k}: {first.choices[k]} and {other.choices.get(k)}" for k in differing)
                raise UsageError(
                    f"{name}: {first.folder} and {other.folder} differ in more than the seed ({said}); compare them in "
                    "two tables."
                )
        seeds = [run.seed for run in (first, *others)]
        if len(set(seeds)) < len(seeds):
            raise UsageError(f"{name}: seeds {sorted(seeds)}; give every training once, so that seeds are counted.")


def require_unseen(runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Refuses to measure a training on pictures that it was trained on, whatever they are called.

    Raises:
        UsageError: naming the training and one of the pictures.
    """
    for run in runs:
        seen = [pair.id for pair in pairs if picture_of(pair) in run.trained_on]
        if seen:
            raise UsageError(
                f"{run.folder}: was trained on {len(seen)} of {len(pairs)} pictures, such as {seen[0]!r}; measure it "
                "on others (name them in a file of their own, or by a column split)."
            )
