"""A tiny random LLaVA and something to train it on, made in code."""

from pathlib import Path
from typing import Any

import torch

from interp.cache import ActivationCache
from interp.prompts.prompt import PromptSet, user_prompt
from interp.tga.samples import TEXTS, TOWER, Sample, TrainingSet
from tests.tiny import make_tokenizer

IMAGE_TOKENS, FEATURES, WIDTH, BLOCKS = 4, 16, 32, 4


def tiny_llava(seed: int = 0, dtype: torch.dtype = torch.float32, **vision: Any) -> Any:
    """A random LlavaForConditionalGeneration whose pictures become 4 tokens."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=len(tokenizer) + 1,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    settings = {
        "hidden_size": FEATURES,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 8,
        **vision,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**settings),
        text_config=text,
        image_token_id=len(tokenizer),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        # transformers' own start is so small that pictures would hardly differ.
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(std=0.3)
    return model.to(dtype)


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
    image = (len(make_tokenizer()),) * IMAGE_TOKENS
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
