"""A tiny random LLaVA and pictures for it, made in code like everything in `tests.tiny`."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from interp.models.processor import assembled
from tests.tiny import make_tokenizer

PATCH, SIDE = 4, 16
IMAGE_TOKENS = (SIDE // PATCH) ** 2

LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def picture(path: Path, seed: int = 0, *, size: tuple[int, int] = (20, 24), **options: Any) -> str:
    """Writes a picture of random colours and returns its path."""
    from PIL import Image

    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path, **options)
    return str(path)


def seeing_tokenizer(*tokens: str, chat_template: str | None = LLAVA_TEMPLATE) -> Any:
    """The tokenizer of `tests.tiny` with tokens for pictures."""
    tokenizer = make_tokenizer(chat_template)  # type: ignore[arg-type]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *tokens]})
    return tokenizer


def llava_processor(*, chat_template: str | None = LLAVA_TEMPLATE) -> Any:
    """The processor of `tiny_llava`; a new object at every call."""
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    size = {"height": SIDE, "width": SIDE}
    images = LlavaImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)
    parts = {"tokenizer": seeing_tokenizer("<image>", chat_template=chat_template), "image_processor": images}
    settings = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return assembled(LlavaProcessor, parts, {**settings, "chat_template": chat_template})


def tiny_llava(seed: int = 0, **text: Any) -> Any:
    """A random LLaVA: a DINOv2 of two blocks, a projector, and a Llama of four blocks and width 32, in fp32."""
    from transformers import Dinov2Config, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = _tokenizer()
    vision = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=PATCH, image_size=SIDE,
        initializer_range=0.2,
    )  # fmt: skip
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        **text,
    }
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**settings),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    # The projector's own start is so small that pictures would hardly differ.
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(std=0.3)
    return model


@cache
def _tokenizer() -> Any:
    return seeing_tokenizer("<image>")


def save_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Saves such a model with its processor as a Hugging Face folder and returns the folder."""
    tiny_llava(seed).save_pretrained(folder)
    llava_processor().save_pretrained(folder)
    return folder
