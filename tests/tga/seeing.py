"""A tiny random LLaVA, made in code."""

from typing import Any

import torch

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
