"""One tiny random vision-language model and processor per architecture, made in code."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch

from interp.models.processor import assembled, without_torchvision
from tests.sights import seeing_tokenizer

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.2,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
CONTENT = "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}" + CONTENT + "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Seeing:
    """How a tiny model of one architecture is made.

    Attributes:
        kind: what transformers calls it.
        tokens: special tokens, by the name that the processor asks its tokenizer for, if any.
        slot: what the chat template writes for a picture.
        text: the configuration of its language model.
        tower: that of its vision tower.
        config: what else is configured.
        images: settings of its image processor.
        settings: settings of its processor.
    """

    kind: str
    tokens: dict[str, str]
    slot: str
    text: dict[str, Any]
    tower: dict[str, Any]
    config: dict[str, Any]
    images: dict[str, Any]
    settings: dict[str, Any]
    image: str = "<image>"
    template: str = TURNS
    image_processor: str = ""


QWEN = {"start": "<|vision_start|>", "end": "<|vision_end|>", "image": "<|image_pad|>", "video": "<|video_pad|>"}
QWEN_SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
SIZE = {"height": 16, "width": 16}
FAKE = {"fake": "<fake_token_around_image>", "image": "<image>", "end": "<end_of_utterance>", "global": "<global-img>"}
FAKE |= {f"cell{i}{j}": f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
QWEN_IMAGES = {
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 64, "longest_edge": 1024},
}

ARCHITECTURES: dict[str, Seeing] = {
    "llava": Seeing(
        "llava",
        {"image": "<image>"},
        "<image>\n",
        {"model_type": "llama", **TEXT},
        {"model_type": "clip_vision_model", **TOWER, "projection_dim": 16},
        {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"},
        {"size": {"shortest_edge": 16}, "crop_size": SIZE},
        {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_next": Seeing(
        "llava_next",
        {"image": "<image>"},
        "<image>\n",
        {"model_type": "mistral", **TEXT},
        {"model_type": "clip_vision_model", **TOWER, "projection_dim": 16},
        {
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]],
        },
        {"size": {"shortest_edge": 16}, "crop_size": SIZE, "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]},
        {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_onevision": Seeing(
        "llava_onevision",
        {"image": "<image>", "video": "<video>"},
        "<image>\n",
        {"model_type": "qwen2", **TEXT},
        {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
        {
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]],
        },
        {"size": SIZE, "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"},
    ),
    "qwen2_vl": Seeing(
        "qwen2_vl",
        QWEN,
        QWEN_SLOT,
        {**TEXT, "rope_parameters": ROPE},
        {"depth": 2, "embed_dim": 16, "num_heads": 2, "patch_size": 4, "hidden_size": 32, "spatial_merge_size": 2},
        {},
        QWEN_IMAGES,
        {},
        image="<|image_pad|>",
    ),
    "qwen2_5_vl": Seeing(
        "qwen2_5_vl",
        QWEN,
        QWEN_SLOT,
        {**TEXT, "rope_parameters": ROPE},
        {
            **QWEN_VISION,
            "out_hidden_size": 32,
            "intermediate_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 16,
        },
        {},
        QWEN_IMAGES,
        {},
        image="<|image_pad|>",
        image_processor="qwen2_vl.Qwen2VLImageProcessorPil",
    ),
    "qwen3_vl": Seeing(
        "qwen3_vl",
        QWEN,
        QWEN_SLOT,
        {**TEXT, "rope_parameters": {**ROPE, "mrope_interleaved": True}},
        {
            **QWEN_VISION,
            "out_hidden_size": 32,
            "intermediate_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
        {},
        QWEN_IMAGES,
        {},
        image="<|image_pad|>",
        image_processor="qwen2_vl.Qwen2VLImageProcessorPil",
    ),
    "gemma3": Seeing(
        "gemma3",
        {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        "<start_of_image>",
        {
            "model_type": "gemma3_text",
            **TEXT,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
        {"mm_tokens_per_image": 4},
        {"size": SIZE},
        {"image_seq_length": 4},
        image="<image_soft_token>",
    ),
    "idefics3": Seeing(
        "idefics3",
        FAKE,
        "<image>",
        {"model_type": "llama", **TEXT},
        {"model_type": "idefics3_vision", **TOWER},
        {"scale_factor": 2},
        {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
        {"image_seq_len": 4},
    ),
    "smolvlm": Seeing(
        "smolvlm",
        {**FAKE, "video": "<video>"},
        "<image>",
        {"model_type": "llama", **TEXT},
        {"model_type": "smolvlm_vision", **TOWER},
        {"scale_factor": 2},
        {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
        {"image_seq_len": 4},
    ),
    "internvl": Seeing(
        "internvl",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        "<IMG_CONTEXT>\n",
        {"model_type": "qwen2", **TEXT},
        {"model_type": "internvl_vision", **{**TOWER, "image_size": [16, 16], "patch_size": [4, 4]}},
        {"downsample_ratio": 0.5, "image_seq_length": 4},
        {"size": SIZE, "max_patches": 3, "min_patches": 1},
        {"image_seq_length": 4},
        image="<IMG_CONTEXT>",
        image_processor="got_ocr2.GotOcr2ImageProcessorPil",
    ),
    "paligemma": Seeing(
        "paligemma",
        {"image": "<image>"},
        "<image>",
        {"model_type": "gemma", **TEXT},
        {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False, "projection_dim": 32},
        {"projection_dim": 32},
        {"size": SIZE, "image_seq_length": 16},
        {},
        image_processor="siglip.SiglipImageProcessorPil",
        template="",
    ),
    "mllama": Seeing(
        "mllama",
        {"image": "<|image|>"},
        "<|image|>",
        {"model_type": "mllama_text_model", **TEXT, "num_hidden_layers": 4, "cross_attention_layers": [1]},
        {
            "model_type": "mllama_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_output_dim": 32,
            "intermediate_layers_indices": [0],
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "initializer_range": 0.2,
        },
        {},
        {"size": SIZE, "max_image_tiles": 2},
        {},
        image="<|image|>",
    ),
    "mistral3": Seeing(
        "mistral3",
        {"image": "[IMG]", "break": "[IMG_BREAK]", "end": "[IMG_END]"},
        "[IMG]",
        {"model_type": "mistral", **TEXT},
        {"model_type": "pixtral", **{**TOWER, "image_size": 32}, "head_dim": 8},
        {"spatial_merge_size": 2, "vision_feature_layer": -1},
        {"size": {"longest_edge": 32}, "patch_size": 4},
        {"patch_size": 4, "spatial_merge_size": 2},
        image="[IMG]",
        image_processor="pixtral.PixtralImageProcessorPil",
    ),
}
NAMES = tuple(ARCHITECTURES)


@cache
def processor_of(name: str) -> Any:
    """The processor of an architecture; shared by the tests, so never change it."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    how = ARCHITECTURES[name]
    template = how.template.replace("IMAGE", how.slot) or None
    tokenizer = seeing_tokenizer(*how.tokens.values(), chat_template=template)
    tokenizer.bos_token = "<|endoftext|>"
    for role, token in how.tokens.items():
        if role.endswith("_token"):
            setattr(tokenizer, role, token)
            setattr(tokenizer, f"{role}_id", tokenizer.convert_tokens_to_ids(token))
    kind = without_torchvision(getattr(transformers, PROCESSOR_MAPPING_NAMES[how.kind]))
    if how.image_processor:
        module, class_name = how.image_processor.split(".")
    else:
        module, class_name = how.kind, kind.__name__.replace("Processor", "ImageProcessorPil")
    images = getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), class_name)
    parts = {"tokenizer": tokenizer, "image_processor": images(**how.images)}
    return assembled(kind, parts, {**how.settings, "chat_template": template})


@cache
def model_of(name: str) -> Any:
    """A random model of an architecture; shared by the tests, so never change it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    how, tokenizer = ARCHITECTURES[name], processor_of(name).tokenizer
    image = tokenizer.convert_tokens_to_ids(how.image)
    ids = {"image_token_id": image, "image_token_index": image}
    if "qwen" in name:
        ids |= {f"vision_{k}_token_id": tokenizer.convert_tokens_to_ids(QWEN[k]) for k in ("start", "end")}
        ids |= {"video_token_id": tokenizer.convert_tokens_to_ids(QWEN["video"])}
    text = {**how.text, "vocab_size": len(tokenizer) + 8}
    config = AutoConfig.for_model(how.kind, text_config=text, vision_config=how.tower, **how.config, **ids)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    _lift(model)
    return model


def _lift(model: Any) -> None:
    """Makes everything that starts too small large enough for pictures to differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() or (parameter.ndim > 1 and parameter.std() < 0.05):
                parameter.normal_(std=0.2)
