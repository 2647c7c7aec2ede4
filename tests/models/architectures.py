"""One tiny random model per architecture: three or four blocks of width 32, weights large enough to matter."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from interp.models.adapter import Batch
from tests.tiny import make_tokenizer, tiny

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GROUPED: dict[str, Any] = {**SIZE, "num_key_value_heads": 2}
HEADS: dict[str, Any] = {**GROUPED, "head_dim": 8}
WINDOW = {"sliding_window": 4}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
OPT: dict[str, Any] = {**SIZE, "ffn_dim": 64, "max_position_embeddings": 64}
FALCON: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR: dict[str, Any] = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

# Name in the tests: (model type, what its configuration sets).
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt_neox": ("gpt_neox", SIZE),
    "llama": ("llama", GROUPED),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", HEADS),
    "gemma2": ("gemma2", {**HEADS, **WINDOW, "final_logit_softcapping": 0.5}),
    "gemma3_text": ("gemma3_text", {**HEADS, **WINDOW}),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 6}),
    "phi3": ("phi3", GROUPED),
    "opt": ("opt", OPT),
    "opt_projected": ("opt", {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "olmo2": ("olmo2", GROUPED),
    "smollm3": ("smollm3", GROUPED),
    "granite": (
        "granite",
        {**GROUPED, "logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    ),
    "cohere": ("cohere", {**GROUPED, "logit_scale": 0.25}),
    "cohere2": ("cohere2", {**GROUPED, **WINDOW, "logit_scale": 0.25}),
    "starcoder2": ("starcoder2", GROUPED),
    "stablelm": ("stablelm", GROUPED),
    "falcon": ("falcon", FALCON),
    "falcon_alibi": ("falcon", {**FALCON, "alibi": True, "new_decoder_architecture": False}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}),
    "gptj": ("gptj", {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4}),
    "persimmon": ("persimmon", SIZE),
    "qwen3_moe": ("qwen3_moe", {**HEADS, **EXPERTS}),
    "gpt_oss": ("gpt_oss", {**HEADS, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "lfm2": ("lfm2", {**GROUPED, "full_attn_idxs": [1]}),
    "qwen3_5_text": ("qwen3_5_text", {**HEADS, **LINEAR}),
}
NAMES = tuple(CONFIGS)
PADDINGS = ("none", "right", "left")
WIDTH = 9


@cache
def model_of(name: str) -> Any:
    """A model of an architecture; shared by the tests, so never change it."""
    kind, config = CONFIGS[name]
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return tiny(kind, **{"initializer_range": 0.1, **tokens, **config})


@cache
def folder_of(name: str, root: Path) -> Path:
    """That model as a folder under ``root``, with a tokenizer."""
    folder = root / name
    model_of(name).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def batch_of(padding: str, *, same: int = 0) -> Batch:
    """Three rows of random tokens, 9, 5 and 7 long when padded; the first ``same`` are those of row 0."""
    generator = torch.Generator().manual_seed(WIDTH)
    ids = torch.randint(3, 300, (3, WIDTH), generator=generator)
    mask = torch.ones(3, WIDTH, dtype=torch.long)
    if padding != "none":
        for row, length in enumerate((9, 5, 7)):
            empty = slice(length, None) if padding == "right" else slice(WIDTH - length)
            mask[row, empty] = 0
    if same:
        ids[:, :same] = ids[0, :same]
    at = torch.stack([mask[row].nonzero()[:, 0][[-3, -1]] for row in range(3)])
    return Batch(ids, mask, at)
