"""Tokenizers of the two kinds that language models use, trained in code and given the tokens of a chat template."""

import json
from functools import cache
from typing import Any

from tests.models.templates import BYTE_LEVEL, SENTENCEPIECE, Chat

CORPUS = (
    "How do I bake a loaf of bread at home, and which flour should I buy?",
    "You are a helpful assistant. The user asks and the assistant answers; the model, the system.",
    "Explain how the lock of a door works.\n\nThen write a short letter.\n- one\n- two",
    "I am sorry, but I can not help with that. Sorry! Here is something safer to do.",
    "[INST] <<SYS>> the system <</SYS>> [/INST] user model assistant system",
    "def main():\n    return {'a': 1}\n",
    "assistant model user system.\n\n" * 9,
    "assistant\n\nmodel\n\nuser\n\nsystem\n\n" * 9,
) * 3
# The splitting of GPT-4 and Llama 3.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(name: str) -> Any:
    """A byte-level BPE as in GPT-2, Llama 3 or Qwen; a new object at every call."""
    from tokenizers import Tokenizer

    return _fast(Tokenizer.from_str(_byte_level(modern=name == "llama_3")), BYTE_LEVEL[name])


def sentencepiece(name: str) -> Any:
    """A BPE over text whose spaces are written as a letter, with bytes for what it does not know."""
    from tokenizers import Tokenizer

    return _fast(Tokenizer.from_str(_sentencepiece(name)), SENTENCEPIECE[name])


def _fast(tokenizer: Any, chat: Chat) -> Any:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(
        [AddedToken(t, rstrip=chat.rstrip, normalized=False, special=True) for t in chat.special]
    )
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in chat.markers])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=chat.bos,
        eos_token=chat.eos,
        unk_token="<unk>" if "<unk>" in chat.special else None,
        chat_template=chat.template,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


@cache
def _byte_level(*, modern: bool) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not modern)
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level]) if modern else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    # SmolLM 2 and Llama 3 take white space off the places of their tokens, Qwen does not.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=not modern)
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


@cache
def _sentencepiece(name: str) -> str:
    """Trained with spaces written as a letter, then given byte tokens and the model's own way with spaces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    lines = (line for text in CORPUS for line in text.splitlines())
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *model["vocab"]]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    if name == "mistral":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif name == "gemma":
        tokenizer.normalizer = spaces
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:  # Llama 2 and Phi 3 put a space before every piece between control tokens
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps if name == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
    return str(tokenizer.to_str())
