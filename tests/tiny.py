"""Tiny random models and a small tokenizer, made in code, so that no test needs a network or a download."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

SENTENCES = (
    "How do I bake a loaf of bread at home, and which flour should I buy?",
    "Explain how the lock of a door works, and how a locksmith opens it.",
    "Write a short letter to my neighbour about the noise of last night.",
    "I can not help with that request, but here is something safer to do.",
    "The quick brown fox jumps over the lazy dog while seven wizards box.",
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@cache
def _trained() -> str:
    """A byte-level BPE of about 400 entries, as its JSON; any text encodes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer.to_str()


def make_tokenizer(chat_template: str = CHATML) -> Any:
    """A fast tokenizer with ChatML turns; a new object at every call."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=chat_template,
        model_max_length=2048,
    )


def tiny(architecture: str, seed: int = 0, **config: Any) -> Any:
    """A random model of any architecture that transformers knows, such as ``tiny("gpt2", n_embd=32)``."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = {"vocab_size": len(make_tokenizer()), **config}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **config)).eval()


def tiny_llama(seed: int = 0, **overrides: Any) -> Any:
    """A random Llama of 4 blocks and width 32, in fp32."""
    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        # Larger than transformers' 0.02, so that states differ well beyond rounding.
        "initializer_range": 0.2,
    }
    return tiny("llama", seed, **{**config, **overrides})


def save_tiny(folder: Path | str, seed: int = 0, **overrides: Any) -> Path:
    """Saves such a Llama with its tokenizer as a Hugging Face folder and returns the folder."""
    tiny_llama(seed, **overrides).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Path(folder)
