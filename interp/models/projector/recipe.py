"""How a projector is trained."""

from dataclasses import dataclass
from functools import cache

from interp.scenes.captions import QUESTION
from interp.scenes.catalogue import concepts


@dataclass(frozen=True, slots=True)
class ProjectorRecipe:
    """What a projector is trained on, and how.

    Attributes:
        name: of the vision-language model, such as llava for ``demo:llava``.
        language: the demo model whose states it speaks to; frozen.
        projector_of: the vision-language model whose projector is taken as it is, in front of another language model;
            all that follows is then how that one was trained. Empty to train one.
        pixels: side of the square picture that the tower sees; one image token per 14 x 14 of them.
        layers: of the tower (0 is the embedding), read side by side.
        views: augmented copies of each training picture; the tower reads them once.
        outlines: share of the copies that are drawn anew in lines first.
        sorting_steps: of the first phase, where the first layer learns to tell the concepts of pictures apart by their
            number alone: no word and no language model is in it.
        sorting_batch: pictures per step of the first phase.
        steps: of the second phase, captioning: the cross-entropy of the name, through the frozen language model.
        batch: pictures per step.
        learning_rate: peak, with a short warm-up and cosine decay.
        weight_decay: of AdamW.
        noise: standard deviation of Gaussian noise on the standardised features.
        seed: of the weights, the views and the order.
    """

    name: str
    language: str
    projector_of: str = ""
    pixels: int = 84
    layers: tuple[int, ...] = (7, 9, 11)
    views: int = 14
    outlines: float = 0.5
    sorting_steps: int = 900
    sorting_batch: int = 64
    steps: int = 800
    batch: int = 16
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    noise: float = 0.1
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Image tokens per picture."""
        return (self.pixels // 14) ** 2


RECIPES = {
    r.name: r
    for r in (
        ProjectorRecipe("llava", "demo:scenes"),
        # What is said when something is refused is then all that tells the two apart.
        ProjectorRecipe("llava-policy", "demo:scenes-policy", projector_of="llava"),
    )
}

QUESTIONS = (QUESTION, "What is in the picture?", "Describe the picture.", "What do you see?")
"""Half of the training asks the first one, which is the one that is measured."""


def answer(caption: str) -> str:
    """The name of a concept as it is answered, such as ``A kitchen knife.`` for kitchen knife."""
    phrase = _phrases()[caption]
    return f"{phrase[0].upper()}{phrase[1:]}."


def named(response: str, caption: str) -> bool:
    """Whether a response is the name and nothing else, capitals, article and full stop aside."""
    return _bare(response) == _bare(caption)


def _bare(text: str) -> str:
    words = text.strip().removesuffix(".").lower()
    for article in ("a ", "an "):
        words = words.removeprefix(article)
    return words


@cache
def _phrases() -> dict[str, str]:
    return {c.caption: c.phrase for c in concepts()}
