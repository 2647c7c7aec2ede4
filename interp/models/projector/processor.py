"""How pictures and words reach the demo vision-language model: image processor, tokenizer and chat template."""

import json
from pathlib import Path
from typing import Any

from interp.models.tower import DEVIATION, MEAN

PATCH = 14
IMAGE_TOKEN, UNUSED_TOKEN = "<image>", "<gh_stars>"
"""The image token takes the place of one that no prompt of ours uses, so that the language model's weights and all its
probabilities stay those of the text model."""

TEMPLATE = """{%- macro said(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for item in content if item['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for item in content if item['type'] == 'text' -%}{{ item['text'] }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + said(message['content']) + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
"""The text model's own template, which also takes contents in parts: pictures come first, each with a line break."""


def image_processor(pixels: int) -> Any:
    """Resizes the shorter side, cuts out the middle square and standardises the pixels; on Pillow alone."""
    from transformers import BitImageProcessorPil

    return BitImageProcessorPil(
        do_convert_rgb=True,
        size={"shortest_edge": pixels},
        crop_size={"height": pixels, "width": pixels},
        resample=3,  # bicubic
        image_mean=list(MEAN),
        image_std=list(DEVIATION),
    )


def save_processor(language: Path, folder: Path, pixels: int) -> int:
    """Writes tokenizer, chat template and image processor of the model into a folder; returns the image token's id.

    Args:
        language: the folder of the text model.
        folder: where they go.
        pixels: side of the square that the tower sees.
    """
    from transformers import AutoTokenizer, LlavaProcessor

    AutoTokenizer.from_pretrained(language, local_files_only=True).save_pretrained(folder)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text("utf-8"))
    (token,) = (t for t in described["added_tokens"] if t["content"] == UNUSED_TOKEN)
    token["content"] = IMAGE_TOKEN
    vocabulary = described["model"]["vocab"]
    if UNUSED_TOKEN in vocabulary:
        vocabulary[IMAGE_TOKEN] = vocabulary.pop(UNUSED_TOKEN)
    path.write_text(json.dumps(described, ensure_ascii=False), "utf-8")
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, extra_special_tokens={"image_token": IMAGE_TOKEN}
    )
    tokenizer.chat_template = TEMPLATE
    processor = LlavaProcessor(
        image_processor=image_processor(pixels),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,  # the tower's class token, which is read by nobody
    )
    processor.save_pretrained(folder)
    return int(token["id"])
