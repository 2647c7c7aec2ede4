"""Tiny random sentence encoders and a tiny CLIP model, as folders."""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from tests.tiny import make_tokenizer


def save_bert(folder: Path, *, pooling: str | None = "mean", extra: tuple[str, ...] = (), seed: int = 0) -> Path:
    """A random BERT of 2 layers and width 16; with modules.json as sentence-transformers writes it, unless None."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    if pooling is None:
        return folder
    kinds = ("Transformer", "Pooling", *extra, "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    return folder


def save_clip(folder: Path, *, seed: int = 0) -> Path:
    """A random CLIP model whose pictures are 12 x 12 pixels, with its processor on the PIL backend."""
    torch.manual_seed(seed)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = make_tokenizer()
    text = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 32}
    config = CLIPConfig(
        text_config=small | text, vision_config=small | {"image_size": 12, "patch_size": 6}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12})
    processor.save_pretrained(folder)
    return folder
