"""Something to train a tiny random LLaVA on, made in code."""

from pathlib import Path
from typing import Any

import torch

from interp.cache import ActivationCache
from interp.prompts.prompt import PromptSet, user_prompt
from interp.tga.samples import TEXTS, TOWER, Sample, TrainingSet
from tests import sights
from tests.sights import IMAGE_TOKENS

FEATURES, WIDTH, BLOCKS = 16, 32, 4


def tiny_llava(seed: int = 0, dtype: torch.dtype = torch.float32, **text: Any) -> Any:
    """The LLaVA of `tests.sights` in any dtype."""
    return sights.tiny_llava(seed, **text).to(dtype)


PREFIX, QUESTION = (5, 6, 7), (9, 10)
CONCEPTS = 6


def tiny_training(
    root: Path,
    *,
    pictures: int = 24,
    validation: int = 6,
    seed: int = 0,
    retrieved_in_prompt: bool = False,
    **known: Any,
) -> TrainingSet:
    """Pictures of 6 concepts, each with a caption of its own, random text states, and another concept's text retrieved.

    ``known`` is put into every sample.
    """
    generator = torch.Generator().manual_seed(seed)
    concepts = [i % CONCEPTS for i in range(pictures + validation)]
    centres = torch.randn(CONCEPTS, IMAGE_TOKENS, FEATURES, generator=generator)
    features = centres[concepts] + 0.1 * torch.randn(len(concepts), IMAGE_TOKENS, FEATURES, generator=generator)
    states = torch.randn(CONCEPTS, BLOCKS + 1, WIDTH, generator=generator)
    image = (sights.seeing_tokenizer("<image>").convert_tokens_to_ids("<image>"),) * IMAGE_TOKENS
    samples = []
    for i, concept in enumerate(concepts):
        other = (concept + 1 + i % (CONCEPTS - 1)) % CONCEPTS
        before = (*PREFIX, 40 + other, 41 + other) if retrieved_in_prompt else PREFIX
        answer = (20 + concept, 30 + concept, 31, 2)[: 3 + concept % 2]
        places = tuple(range(len(before), len(before) + IMAGE_TOKENS))
        sample = {"caption": concept, "retrieved": other, **known}
        samples.append(Sample(f"p{i}", (*before, *image, *QUESTION), places, answer, i, **sample))
    return TrainingSet(
        tuple(samples[:pictures]),
        tuple(samples[pictures:]),
        cached(root, TOWER, features),
        cached(root, TEXTS, states),
    )


def cached(root: Path, position: str, states: torch.Tensor) -> ActivationCache:
    prompts = PromptSet(position, tuple(user_prompt(f"{position}-{i}", f"row {i}") for i in range(len(states))))
    return ActivationCache.from_arrays({position: states}, prompts, root, name="tiny")
