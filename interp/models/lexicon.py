"""What refusal words are in one tokenizer: vocabulary ids, and which words it can not see whole."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interp.prompts.families import RefusalFamily

PAPER_WORDS = ("sorry",)
RELEASED_WORDS = ("sorry", "I")
"""The released code of the TGA paper watches the ids of these two words (science: it hard-codes Mistral's)."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The ids that first-token readings watch.

    Attributes:
        family: name of the refusal family.
        paper: every vocabulary entry that reads "sorry", in any case, with or without a space before it.
        released: those, and every entry that reads "I" in upper case.
        openings: the first token of each of the family's phrases.
        names: how each of these ids reads.
    """

    family: str
    paper: tuple[int, ...]
    released: tuple[int, ...]
    openings: tuple[int, ...]
    names: dict[int, str]


def compile_lexicon(tokenizer: Any, family: RefusalFamily) -> Lexicon:
    """Finds the ids of a family's words in a tokenizer.

    A word that the vocabulary splits has no id of its own: ``paper`` is then empty, and rules that watch it can not
    fire. That is reported, not mended with the first piece, which other words share.
    """
    reads = {i: tokenizer.decode([i]).strip() for i in range(len(tokenizer))}
    sorry = tuple(i for i, text in reads.items() if text.lower() in PAPER_WORDS)
    released = tuple(sorted({*sorry, *(i for i, text in reads.items() if text in RELEASED_WORDS)}))
    openings = first_tokens(tokenizer, family.phrases)
    watched = {*sorry, *released, *openings}
    return Lexicon(family.name, sorry, released, openings, {i: tokenizer.decode([i]) for i in sorted(watched)})


def first_tokens(tokenizer: Any, phrases: Iterable[str]) -> tuple[int, ...]:
    """The first token of every phrase, each once, in ascending order."""
    return tuple(sorted({tokenizer(p, add_special_tokens=False)["input_ids"][0] for p in phrases}))
