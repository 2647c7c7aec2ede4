"""The states of a model in every arm, harvested or taken from their caches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analyses.answers import answers
from analyses.cross_modal.arms import CAPTION, IMAGE, Sides, image_prompts, require_concepts, slot_prompts
from analyses.cross_modal.questions import QUESTION, described
from analyses.subjects import Loader, Runner, harvested
from interp.cache import ActivationCache, Capture, run_harvest
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts import PromptSet
from interp.prompts.pairs import Pair

DESCRIPTION_TOKENS = 20
NOTHING = "(nothing)"
"""What stands for an empty description: the slot of a prompt can not be empty."""


def harvest_sides(
    source: ModelSource,
    runtime: Runtime,
    pairs: Sequence[Pair],
    root: Path,
    loaded: Loader,
    *,
    question: str = QUESTION,
    limits: Capture | None = None,
    run: Runner = run_harvest,
    notify: Callable[[str], None] = lambda _: None,
) -> Sides:
    """Reads every arm of the pairs and asks the model what it sees; it is loaded only when something is missing.

    Args:
        source: the vision-language model.
        runtime: resolved.
        pairs: pictures with captions.
        root: the folder of run folders.
        loaded: gives the model.
        question: the instruction of every prompt.
        limits: storage and batch limits of the harvests.
        run: runs a planned harvest under ``root``.
        notify: told in one line what is happening.

    Raises:
        UsageError: for pairs of too few concepts, and a model that reads no pictures.
        ImageError: for a picture that can not be read.
    """
    require_concepts(pairs)
    limits = limits or Capture()

    def arm(name: str, prompts: PromptSet, positions: tuple[str, ...]) -> ActivationCache:
        notify(f"{name}: {len(prompts)} prompts.")
        return harvested(source, runtime, prompts, replace(limits, positions=positions), root, loaded, run)

    seen = image_prompts(pairs, question)
    image = arm("Pictures", seen, IMAGE)
    caption = arm("Captions", slot_prompts([p.caption for p in pairs], question), CAPTION)
    text = arm("Texts", slot_prompts([described(p) for p in pairs], question), CAPTION)
    notify("What the model says it sees.")
    said = tuple(one or NOTHING for one in answers(image, seen, loaded, tokens=DESCRIPTION_TOKENS))
    own = arm("Its own descriptions", slot_prompts(said, question), CAPTION)
    return Sides(tuple(pairs), image, caption, text, own, said)
