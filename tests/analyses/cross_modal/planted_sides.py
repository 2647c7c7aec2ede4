"""Caches of pictures, captions and texts in which what pictures share with their captions is known."""

import numpy as np

from analyses.cross_modal.arms import CAPTION, IMAGE, Sides, image_prompts, slot_prompts
from analyses.cross_modal.questions import described as in_words
from interp.cache import ActivationCache
from interp.prompts.pairs import Pair
from tests.sights import picture

LAYERS, WIDTH, CONCEPTS, STYLES = tuple(range(6)), 24, 32, 2
SAFE = (3, 4, 5)
"""Layers at which the text arm is told apart by what it shows."""


def pairs_in(folder):
    """Half of the concepts are scenes, half their twins; every one in two styles, with one caption."""
    image = picture(folder / "any.png")
    return tuple(
        Pair(
            id=f"p{c:02}-{s}",
            image=image,
            caption=f"thing {c}",
            scene="knife",
            twin_of=None if c % 2 == 0 else f"p{c - 1:02}-{s}",
            concept=f"c{c:02}",
            style=f"style {s}",
        )
        for c in range(CONCEPTS)
        for s in range(STYLES)
    )


def sides(folder, *, image=1.0, described=2.0, scenes=(0.2, 1.0), seed=0, pairs=None):
    """What every arm holds at layer l, position by position.

    A caption is a vector of its concept; at `SAFE` that of a scene has a step along coordinate 2 as well. A picture
    holds ``image`` times that vector, and ``scenes[0]`` of the step, beside noise and a large mean of its own; a
    description holds ``described`` times the vector. The text arm is the caption with other noise and ``scenes[1]`` of
    the step.
    """
    rng = np.random.default_rng(seed)
    pairs = pairs or pairs_in(folder)
    concepts = len({p.concept for p in pairs})
    concept = rng.normal(size=(concepts, len(LAYERS), WIDTH))
    step = np.zeros_like(concept)
    step[::2, SAFE[0] :, 2] = 6.0
    mean = 30 * rng.normal(size=WIDTH)
    of = np.repeat(np.arange(concepts), STYLES)

    def noise(rows):
        return rng.normal(size=(rows, len(LAYERS), WIDTH))

    arms = {
        "image": image * concept[of] + scenes[0] * step[of] + noise(len(pairs)) + 2 * mean,
        "caption": concept + step + mean,
        "text": concept + scenes[1] * step + 0.5 * noise(concepts) + mean,
        "described": described * concept + step + noise(concepts) + mean,
    }
    descriptions = tuple(f"a picture of {p.caption}" for p in pairs)
    prompts = {
        "image": (image_prompts(pairs), IMAGE),
        "caption": (slot_prompts([p.caption for p in pairs]), CAPTION),
        "text": (slot_prompts([in_words(p) for p in pairs]), CAPTION),
        "described": (slot_prompts(descriptions), CAPTION),
    }
    caches = {
        name: ActivationCache.from_arrays(
            {position: arms[name].astype(np.float32) for position in at}, asked, folder / name, name="planted"
        )
        for name, (asked, at) in prompts.items()
    }
    return Sides(pairs, **caches, descriptions=descriptions)
