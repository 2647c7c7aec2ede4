"""Descriptions of the seven scenes in words, with harmless ones of the same form: the text arm of the scenes.

The captions stand where a picture will stand, before the question. They are held out by what they say and by how: no
phrase and no form of the test split is in the training split.
"""

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

from interp.errors import UsageError
from interp.prompts.prompt import Label, Prompt, PromptSet, user_prompt
from interp.scenes.catalogue import SCENES, concepts

QUESTION = "Describe this scene."
"""What is asked of every picture and of every caption in its place."""

FORMS = {
    "train": (
        "{bare}",
        "{phrase}",
        "{Phrase}.",
        "a picture of {phrase}",
        "A photo of {phrase} on a white background.",
        "{Phrase} on a wooden table.",
        "a drawing of {phrase}",
        "There is {phrase} in the picture.",
        "a close-up of {phrase}",
        "an emoji of {phrase}",
        "a cartoon of {phrase}",
        "The scene shows {phrase}.",
        "We see {phrase} and nothing else.",
        "Somebody is looking at {phrase}.",
        "{Phrase}, seen from above.",
        "{Phrase} in the street at night.",
    ),
    "test": (
        "an old painting of {phrase}",
        "In the middle of the room there is {phrase}.",
        "Image: {bare}",
        "a black and white sketch of {phrase}",
        "A child has drawn {phrase} with crayons.",
        "{Phrase} next to a window.",
    ),
}
GROUPS, TEST_FORMS = 882, 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a caption can name.

    Attributes:
        text: with its article.
        scene: one of the seven, or None for an ordinary thing.
        kind: an instance of the scene, a harmless twin of it, or ordinary.
        use: the split it belongs to.
    """

    text: str
    scene: str | None
    kind: Literal["instance", "twin", "ordinary"]
    use: str

    @property
    def label(self) -> Label:
        """Harmful for instances of a scene."""
        return "harmful" if self.kind == "instance" else "harmless"

    def said(self, form: str) -> str:
        """The caption in one of the `FORMS`."""
        bare = self.text
        for article in ("a ", "an ", "the "):
            bare = bare.removeprefix(article)
        return form.format(phrase=self.text, Phrase=self.text[0].upper() + self.text[1:], bare=bare)


def scene_captions(split: str) -> PromptSet:
    """Captions with the question, as text prompts.

    Args:
        split: ``train``: groups of instances of two scenes, a twin of the first and an ordinary thing in the same
            form, drawn with a fixed seed so that all scenes weigh alike; one group in four is bare captions, as the
            pictures have them; ``test``: held-out phrases in held-out forms;
            ``labels``: the bare captions of the bundled pictures, of which training has seen most.

    Returns:
        Prompts labelled harmful (instances) or harmless; the category is the scene, or ``ordinary``.

    Raises:
        UsageError: for a split that does not exist.
    """
    makers = {"train": _train, "test": _test, "labels": _labels}
    if split not in makers:
        raise UsageError(f"the scene captions have no split {split!r}; choose one of {', '.join(makers)}.")
    return PromptSet(f"scenes:{split}", tuple(makers[split]()))


@cache
def phrases() -> tuple[Phrase, ...]:
    """All phrases; ordinary ones are the ordinary concepts of the pictures, held out where those are."""
    with (files("interp.scenes") / "data" / "captions.csv").open("r", encoding="utf-8") as file:
        written = [Phrase(r["phrase"], r["scene"], r["kind"], r["use"]) for r in csv.DictReader(file)]  # type: ignore[arg-type]
    ordinary = [
        Phrase(c.phrase, None, "ordinary", "train" if c.known else "test") for c in concepts() if c.scene is None
    ]
    return (*written, *ordinary)


def caption_prompt(id: str, caption: str, **known: str | None) -> Prompt:  # noqa: A002
    """The question about a caption; ``known`` are the other fields of `Prompt`."""
    return user_prompt(id, f"{caption}\n{QUESTION}", **known)


def _prompt(id: str, phrase: Phrase, form: str, group: str, split: str) -> Prompt:  # noqa: A002
    known = {"label": phrase.label, "category": phrase.scene or "ordinary", "group": group, "split": split}
    return caption_prompt(id, phrase.said(form), **known)


def _train() -> Iterator[Prompt]:
    rng = random.Random(0)  # noqa: S311 - sampling, not cryptography
    draws = {
        (scene, kind): _endless(rng, [p for p in phrases() if (p.scene, p.kind, p.use) == (scene, kind, "train")])
        for scene in SCENES
        for kind in ("instance", "twin")
    }
    ordinary = _endless(rng, [p for p in phrases() if p.kind == "ordinary" and p.use == "train"])
    forms = _endless(rng, FORMS["train"])
    for number in range(GROUPS):
        first, second = (SCENES[(2 * number + step) % len(SCENES)] for step in (0, 1))
        form, group = "{bare}" if number % 4 == 0 else next(forms), f"train-{number:03}"
        drawn = (draws[first, "instance"], draws[second, "instance"], draws[first, "twin"], ordinary)
        for name, draw in zip("ijto", drawn, strict=True):
            yield _prompt(f"{group}-{name}", next(draw), form, group, "train")


def _test() -> Iterator[Prompt]:
    forms = FORMS["test"]
    held_out = [p for p in phrases() if p.use == "test"]
    for number, phrase in enumerate(held_out):
        for turn in range(TEST_FORMS):
            form = forms[(number + turn) % len(forms)]
            yield _prompt(f"test-{number:03}-{turn}", phrase, form, f"test-{number:03}", "test")


def _labels() -> Iterator[Prompt]:
    for concept in concepts():
        if concept.scene is not None:
            label = "harmless" if concept.twin_of else "harmful"
            known = {"label": label, "category": concept.scene, "split": "labels"}
            yield caption_prompt(f"label-{concept.slug}", concept.caption, **known)


def _endless(rng: random.Random, items: Sequence[T]) -> Iterator[T]:
    """Passes over all items in a new order each time."""
    while True:
        order = list(items)
        rng.shuffle(order)
        yield from order
