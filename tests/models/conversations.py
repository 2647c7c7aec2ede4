"""Conversations, and what the tokenizers of the tests make of them."""

from typing import Any

from interp.models.encoding import Encoded, Encoder
from interp.prompts.prompt import Message, Prompt
from tests.models.templates import BYTE_LEVEL, SENTENCEPIECE, Chat
from tests.models.vocabularies import byte_level, sentencepiece

KINDS: dict[str, tuple[Any, dict[str, Chat]]] = {
    "bytes": (byte_level, BYTE_LEVEL),
    "pieces": (sentencepiece, SENTENCEPIECE),
}
ALL = [(kind, name) for kind, (_, chats) in KINDS.items() for name in chats]
POSITIONS = ("t_inst", "t_post")


def tokenizer_of(kind: str, name: str) -> Any:
    return KINDS[kind][0](name)


def talk(*contents: str, system: str | None = None) -> Prompt:
    """Turns of user and assistant, ending with the user's."""
    roles = ("user", "assistant")
    turns = [Message(roles[i % 2], c) for i, c in enumerate(contents)]
    return Prompt("p", tuple([Message("system", system)] if system is not None else []) + tuple(turns))


def template_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    return list(encoded["input_ids"])


def encode(tokenizer: Any, prompt: Prompt, positions: Any = POSITIONS) -> Encoded:
    return Encoder(tokenizer).encode([prompt], positions)[0]


def read(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def solid(text: str) -> str:
    """Without white space, which some control tokens swallow."""
    return "".join(text.split())
