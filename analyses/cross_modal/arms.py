"""The arms of a cross-modal study: one question about a picture, about its caption in the same place, and about a text.

The text is the caption in whole sentences (`analyses.cross_modal.questions.described`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray

from analyses.cross_modal.questions import QUESTION, asked, described
from interp.axes import States
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.geometry import Arms
from interp.prompts import PromptSet, user_prompt
from interp.prompts.pairs import Pair

PLACES = {"slot": ("image_mean", "caption_mean"), "t_inst": ("t_inst", "t_inst"), "t_post": ("t_post", "t_post")}
"""Where the arms are compared: the position in prompts with a picture, and in those with words in the slot."""
IMAGE, CAPTION = (tuple(place[i] for place in PLACES.values()) for i in (0, 1))
FEWEST = 8
"""Concepts below which nothing can be fitted on some and tested on others."""


def image_prompts(pairs: Sequence[Pair], question: str = QUESTION) -> PromptSet:
    """One prompt per pair, its picture in the slot."""
    return PromptSet("pictures", asked(pairs, "image", question))


def slot_prompts(texts: Sequence[str], question: str = QUESTION) -> PromptSet:
    """One prompt per different text, in order of first appearance, the text in the slot."""
    prompts = [user_prompt(f"text-{i:05}", question, caption=text) for i, text in enumerate(dict.fromkeys(texts))]
    return PromptSet("texts", tuple(prompts))


def require_concepts(pairs: Sequence[Pair]) -> None:
    """Raises UsageError for pairs of too few concepts."""
    concepts = {p.unit for p in pairs}
    if len(concepts) < FEWEST:
        raise UsageError(
            f"{len(concepts)} concepts in {len(pairs)} pairs; give {FEWEST} or more: what is taken off the states is "
            "fitted on other concepts than it is tried on."
        )


@dataclass(frozen=True)
class Sides:
    """The states of a model in every arm.

    Attributes:
        pairs: pictures with captions.
        image: cache of `image_prompts`.
        caption: cache of `slot_prompts` of the pairs' captions.
        text: cache of `slot_prompts` of the longer texts.
        described: cache of `slot_prompts` of ``descriptions``; None where the model was not asked.
        descriptions: what the model itself says of every picture; empty where it was not asked.
    """

    pairs: tuple[Pair, ...]
    image: ActivationCache
    caption: ActivationCache
    text: ActivationCache
    described: ActivationCache | None = None
    descriptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {
            "image": (self.image, len(self.pairs)),
            "caption": (self.caption, len(set(self.captions))),
            "text": (self.text, len(set(self.texts))),
        }
        if self.described is not None:
            counts["described"] = (self.described, len(set(self.descriptions)))
        for name, (cache, expected) in counts.items():
            if len(cache) != expected or cache.layers != self.image.layers:
                raise UsageError(
                    f"{cache.place}: {len(cache)} prompts and layers {cache.layers}, but the {name} arm of these pairs "
                    f"has {expected} and the pictures have layers {self.image.layers}; harvest the arms of one model."
                )
        require_concepts(self.pairs)

    @property
    def captions(self) -> list[str]:
        """Of every pair."""
        return [p.caption for p in self.pairs]

    @property
    def texts(self) -> list[str]:
        """Of every pair, what its text arm says."""
        return [described(p) for p in self.pairs]

    @property
    def concepts(self) -> tuple[str, ...]:
        """Of every pair; the unit of every interval."""
        return tuple(p.unit for p in self.pairs)

    @property
    def concepts_known(self) -> set[str]:
        """Without repeats."""
        return set(self.concepts)

    @cached_property
    def harmful(self) -> Bool[ndarray, " pair"]:
        """Which pairs show a scene, and not a twin or something ordinary."""
        return np.array([p.label == "harmful" for p in self.pairs])

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer numbers of every arm."""
        return self.image.layers

    def arms(self, place: str) -> Arms:
        """Pictures against their captions at one of `PLACES`."""
        image, caption = PLACES[place]
        states = self.caption.residuals(position=caption)[torch.from_numpy(_rows(self.captions))]
        return Arms(self.image.residuals(position=image), states, self.concepts, self.layers)

    def described_arms(self, place: str) -> Arms | None:
        """The model's own descriptions, in the caption's place, against the captions; None where there are none."""
        if self.described is None:
            return None
        at = PLACES[place][1]
        found = self.described.residuals(position=at)[torch.from_numpy(_rows(self.descriptions))]
        return replace(self.arms(place), image=found)

    def text_states(self, place: str) -> States:
        """The text arm's states of every pair at one of `PLACES`."""
        return self.text.residuals(position=PLACES[place][1])[torch.from_numpy(_rows(self.texts))]


def _rows(texts: Sequence[str]) -> Int[ndarray, " pair"]:
    """The row of every text in the prompts made of the different ones."""
    order = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.array([order[text] for text in texts])
