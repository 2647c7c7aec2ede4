"""Training a projector by text-guided alignment, on cached vision features and cached text states."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from interp.cache.publish import make_folder, publishing
from interp.errors import Interrupted
from interp.models.identity import TRAINED_LORA, TRAINED_PROJECTOR
from interp.models.lora import write_lora
from interp.tga.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from interp.tga.processes import Processes
from interp.tga.projector import write_projector
from interp.tga.recipe import Recipe
from interp.tga.samples import TrainingSet
from interp.tga.training import Training

Progress = Callable[[int, int], None]
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    Attributes:
        folder: holds ``projector``, ``lora`` where one was trained, and the two tables as parquet.
        digest: of everything that decided it, as the projector's record carries it.
        steps: how many updates were made.
        kept_step: after how many of them the projector is that is kept: the last, or the best with patience.
        stopped_early: whether the validation loss ended it.
        steps_table: one row per step: losses, cosines, gradients where audited, validation loss where measured.
        layers_table: cosines by layer on the validation pictures, where measured.
    """

    folder: Path
    digest: str
    steps: int
    kept_step: int
    stopped_early: bool
    steps_table: pd.DataFrame
    layers_table: pd.DataFrame


def train(
    model: Any,
    data: TrainingSet,
    recipe: Recipe,
    out: Path,
    *,
    name: str = "local",
    processes: Processes | None = None,
    progress: Progress = lambda *_: None,
    log: Callable[[Mapping[str, float | int]], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains the projector of a LLaVA-class model; a second call with the same arguments goes on where one stopped.

    Args:
        model: of transformers, in bfloat16 or float32; its projector is changed, with LoRA its language model too. Load
            it anew for every training: where it starts is part of what a training is known by.
        data: what it is trained on.
        recipe: how.
        out: folder for checkpoints and results.
        name: of the model, for the LoRA folder.
        processes: those that train together; found out when not given.
        progress: called with (steps done, steps in all).
        log: called with the numbers of every step.
        should_stop: asked before every step; True in any process raises Interrupted and leaves a checkpoint.

    Returns:
        What was trained and measured. The model holds the trained projector, in its own dtype.

    Raises:
        TrainingError: when the guide's gradient is not what the variant says, see `interp.tga.audit`, or a gradient is
            no number.
        ModelMismatch: when ``out`` holds checkpoints of another training, naming the field.
        UsageError: for layers or states that are not there, patience without validation pictures, or nothing to train.
        Interrupted: when asked to stop.
    """
    processes = processes or Processes()
    training = Training(model, data, recipe, processes)
    kept = read_checkpoint(out / CHECKPOINTS, training.identity)
    if kept is None:
        training.begin()
    else:
        training.restore(kept)
    main = processes.rank == 0
    while not training.finished:
        if processes.any(should_stop()):
            _keep(training, out, main)
            raise Interrupted(f"stopped at step {training.step}; the same command goes on from {out / CHECKPOINTS}.")
        numbers = training.advance()
        if main:
            log(numbers)
            progress(training.step, training.total)
        if training.step % recipe.checkpoint_every == 0 or training.finished:
            _keep(training, out, main)
    training.take_best()
    if main:
        _write(training, out, name)
    processes.wait()
    training.release()
    return _trained(training, out)


def _keep(training: Training, out: Path, main: bool) -> None:
    if main:
        tensors, numbers = training.state()
        checkpoint = Checkpoint(training.step, tensors, numbers, training.tables())
        write_checkpoint(checkpoint, out / CHECKPOINTS, training.identity)


def _trained(training: Training, out: Path) -> Trained:
    tables, made, kept = training.tables(), training.step, training.kept_step
    return Trained(out, training.digest, made, kept, training.stopped, tables["steps"], tables["layers"])


def _write(training: Training, out: Path, name: str) -> None:
    """The projector, LoRA where there is one, and the tables."""
    make_folder(out)
    about = {
        "arm": training.data.arm,
        "steps": training.total,
        "made_steps": training.step,
        "kept_step": training.kept_step,
        "recipe": training.recipe.record(),
        "data": training.data.about,
        "samples": training.data.digest,
        "trained_on": sorted({s.picture for s in training.data.train if s.picture}),
    }
    write_projector(
        training.model.projector,
        out / TRAINED_PROJECTOR,
        owner=training.owner,
        variant=training.recipe.variant.name,
        training=training.digest,
        about=about,
    )
    if training.adapted is not None:
        write_lora(training.adapted, out / TRAINED_LORA, base=name)
    for table, frame in training.tables().items():
        with publishing(out / f"{table}.parquet") as path:
            frame.to_parquet(path, index=False)
