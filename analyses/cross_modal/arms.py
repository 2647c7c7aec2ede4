"""The arms of a cross-modal study: one question about a picture, about its caption in the same place, and as text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray

from interp.axes import States
from interp.cache import ActivationCache, Capture
from interp.errors import UsageError
from interp.geometry import Arms
from interp.prompts import PromptSet, user_prompt
from interp.prompts.pairs import Pair

QUESTION = "Describe this scene."
PLACES = {"slot": ("image_mean", "caption_mean"), "t_inst": ("t_inst", "t_inst"), "t_post": ("t_post", "t_post")}
"""Where the arms are compared: the position of each."""
IMAGE, CAPTION, TEXT = ("image_mean", "t_inst", "t_post"), ("caption_mean", "t_inst", "t_post"), ("t_inst", "t_post")
FEWEST = 8
"""Concepts below which nothing can be fitted on some and tested on others."""


def image_prompts(pairs: Sequence[Pair], question: str = QUESTION) -> PromptSet:
    """One prompt per pair, its picture in the slot."""
    known = [{"label": p.label, "category": p.scene, "group": p.unit} for p in pairs]
    prompts = [user_prompt(p.id, question, image=p.image, **k) for p, k in zip(pairs, known, strict=True)]
    return PromptSet("pictures", tuple(prompts))


def caption_prompts(captions: Sequence[str], question: str = QUESTION) -> PromptSet:
    """One prompt per different caption, in order of first appearance, the caption in the slot."""
    different = dict.fromkeys(captions)
    return PromptSet(
        "captions", tuple(user_prompt(f"c{i:05}", question, caption=text) for i, text in enumerate(different))
    )


def text_prompts(captions: Sequence[str], question: str = QUESTION) -> PromptSet:
    """One prompt per different caption, nothing in the slot: "Describe this scene: knife", as the TGA paper asks."""
    asked = question.rstrip(" .?!:")
    different = dict.fromkeys(captions)
    return PromptSet("text", tuple(user_prompt(f"t{i:05}", f"{asked}: {text}") for i, text in enumerate(different)))


def captures(base: Capture | None = None) -> dict[str, Capture]:
    """What is kept of every arm, with the limits of ``base``."""
    base = base or Capture()
    return {name: replace(base, positions=at) for name, at in (("image", IMAGE), ("caption", CAPTION), ("text", TEXT))}


@dataclass(frozen=True)
class Sides:
    """The states of a model in every arm.

    Attributes:
        pairs: pictures with captions.
        image: cache of `image_prompts`.
        caption: cache of `caption_prompts` of the pairs' captions.
        text: cache of `text_prompts` of them.
        described: cache of `caption_prompts` of ``descriptions``; None where the model was not asked.
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
            "text": (self.text, len(set(self.captions))),
        }
        if self.described is not None:
            counts["described"] = (self.described, len(set(self.descriptions)))
        for name, (cache, expected) in counts.items():
            if len(cache) != expected or cache.layers != self.image.layers:
                raise UsageError(
                    f"{cache.place}: {len(cache)} prompts and layers {cache.layers}, but the {name} arm of these pairs "
                    f"has {expected} and the pictures have layers {self.image.layers}; harvest the arms of one model."
                )
        if len(self.concepts_known) < FEWEST:
            raise UsageError(
                f"{len(self.concepts_known)} concepts in {len(self.pairs)} pairs; give {FEWEST} or more: what is taken "
                "off the states is fitted on other concepts than it is tried on."
            )

    @property
    def captions(self) -> list[str]:
        """Of every pair."""
        return [p.caption for p in self.pairs]

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

    def text_states(self, position: str) -> States:
        """The text arm's states of every pair."""
        return self.text.residuals(position=position)[torch.from_numpy(_rows(self.captions))]


def _rows(texts: Sequence[str]) -> Int[ndarray, " pair"]:
    """The row of every text in the prompts made of the different ones."""
    order = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.array([order[text] for text in texts])
