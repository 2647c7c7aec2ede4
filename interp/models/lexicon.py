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


@dataclass(frozen=True, slots=True)
class WholeWords:
    """The ids of a list of words, where words are wanted and not what answers open with.

    Attributes:
        ids: ascending, each once.
        split: the words that no vocabulary entry reads; they are left out, or stood in for by their first piece.
        names: how each of the ids reads.
    """

    ids: tuple[int, ...]
    split: tuple[str, ...]
    names: dict[int, str]


def whole_words(tokenizer: Any, words: Iterable[str], *, first_subtoken: bool = False) -> WholeWords:
    """Every vocabulary entry that reads one of the words, with or without a space before it; case counts.

    Args:
        tokenizer: of the model.
        words: to look for.
        first_subtoken: take the first piece of every word as it is encoded alone, whole or not, and no other entry;
            pieces such as "un" stand for nothing, but published code takes them. ``split`` then names the words of
            which this piece is not the whole.
    """
    words = tuple(words)
    if first_subtoken:
        pieces = {w: tokenizer(w, add_special_tokens=False)["input_ids"] for w in words}
        ids, split = {p[0] for p in pieces.values()}, tuple(w for w in words if len(pieces[w]) > 1)
    else:
        readings = {f"{space}{w}" for w in words for space in ("", " ")}
        reads = {i: text for i in range(len(tokenizer)) if (text := tokenizer.decode([i])) in readings}
        whole = {text.removeprefix(" ") for text in reads.values()}
        ids, split = set(reads), tuple(w for w in words if w not in whole)
    return WholeWords(tuple(sorted(ids)), split, {i: tokenizer.decode([i]) for i in sorted(ids)})


def first_tokens(tokenizer: Any, phrases: Iterable[str]) -> tuple[int, ...]:
    """The first token of every phrase, each once, in ascending order."""
    return tuple(sorted({tokenizer(p, add_special_tokens=False)["input_ids"][0] for p in phrases}))
