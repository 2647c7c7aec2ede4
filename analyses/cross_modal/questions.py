"""The prompts of every arm: one question, and what stands in the slot before it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.cross_modal.rungs import NONE, REAL, RUNGS, TWIN, drawn_pictures, zero_colour
from analyses.cross_modal.transfer import CAPTION, IMAGE, TEXT
from analyses.cross_modal.twinned import Twinned
from interp.prompts.pairs import Pair
from interp.prompts.prompt import Prompt, user_prompt

QUESTION = "Describe this scene."
DESCRIPTION = "A picture: {caption}. It shows this and nothing else, large and in the middle, on a plain background."
"""The longer text of the text arm: the caption in whole sentences, and nothing else of content."""


def described(pair: Pair) -> str:
    """What the text arm says of a pair."""
    return DESCRIPTION.format(caption=pair.caption)


def asked(pairs: Sequence[Pair], arm: str, question: str = QUESTION) -> tuple[Prompt, ...]:
    """The prompts of an arm, one per pair, in their order.

    Args:
        pairs: with unique ids.
        arm: text, caption or image.
        question: the instruction, the same in every arm.
    """
    slot = {
        TEXT: lambda pair: {"caption": described(pair)},
        CAPTION: lambda pair: {"caption": pair.caption},
        IMAGE: lambda pair: {"image": pair.image},
    }[arm]
    return tuple(
        user_prompt(pair.id, question, label=pair.label, category=pair.scene, group=pair.unit, **slot(pair))
        for pair in pairs
    )


def different(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[int]]:
    """The prompts that ask different things, and for every prompt the place of its own among them.

    What a model does with a prompt depends on its words and its picture alone, so each is run once.
    """
    places: dict[tuple[object, ...], int] = {}
    chosen: list[Prompt] = []
    back = []
    for prompt in prompts:
        key = (prompt.messages, prompt.image, prompt.caption)
        if key not in places:
            places[key] = len(chosen)
            chosen.append(prompt)
        back.append(places[key])
    return chosen, back


def rung_prompts(
    rows: Twinned, processor: Any, folder: Path, *, question: str = QUESTION, seed: int = 0
) -> Mapping[str, tuple[Prompt, ...]]:
    """The prompts of every rung of the ladder, from the bottom to the top, one per row.

    Args:
        rows: harmful pairs and their twins.
        processor: of the vision-language model; its picture processor says what a zero image is.
        folder: where drawn pictures are kept.
        question: the instruction.
        seed: of random colours.
    """
    real = [pair.image for pair in rows.harmful]
    zero = zero_colour(getattr(processor, "image_processor", processor))

    def pictures(rung: str) -> Sequence[str | None]:
        if rung == NONE:
            return [None] * len(rows)
        if rung in (TWIN, REAL):
            return [pair.image for pair in (rows.twins if rung == TWIN else rows.harmful)]
        return drawn_pictures(rung, real, folder, zero=zero, seed=seed)

    return {
        rung: tuple(
            user_prompt(f"{pair.id} {rung}", question, image=picture)
            for pair, picture in zip(rows.harmful, pictures(rung), strict=True)
        )
        for rung in RUNGS
    }
