"""A refusal family compiled for one tokenizer: the token sequences with which an answer opens as its phrases do."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import UsageError
from interp.prompts.families import RefusalFamily, opening, opening_text


@dataclass(frozen=True, slots=True)
class PhraseTrie:
    """The openings of a family as token sequences, none of which begins with another.

    An answer begins with at most one of them, so the sum of their probabilities is a probability: that a sampled
    answer begins with one of the family's openings, spelt and tokenized as here.

    Attributes:
        family: name of the refusal family.
        sequences: vocabulary ids, in ascending order. One given twice, or that begins with a shorter one, is dropped.
            Without any the trie matches nothing: the tokenizer can not write the family.
    """

    family: str
    sequences: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not all(self.sequences):
            raise UsageError(f"family {self.family}: an empty token sequence would begin every answer; leave it out.")
        object.__setattr__(self, "sequences", prefix_free(self.sequences))

    def matches(self, ids: Sequence[int]) -> bool:
        """Whether an answer begins with one of the sequences.

        Args:
            ids: the vocabulary ids of the answer; none matches nothing.
        """
        # Where no sequence extends another, one that begins the answer is the last that does not sort behind it.
        answer = tuple(ids)
        place = bisect_right(self.sequences, answer) - 1
        return place >= 0 and answer[: len(self.sequences[place])] == self.sequences[place]


def compile_trie(tokenizer: Any, family: RefusalFamily) -> PhraseTrie:
    """The openings of a family's phrases as a tokenizer writes them at the start of an answer.

    What counts is the opening of a phrase (`interp.prompts.families.opening_text`), for refusals vary in how they go
    on. It is compiled in every spelling of `spellings`, and both alone and as the phrase continues it, since a
    vocabulary may join its end with what follows. Other spellings and tokenizations are not covered, so a probability
    read from the trie is a lower bound; on the other side a last word counts whatever its ending ("It is hard" begins
    "It is hardly"), and a phrase shorter than an opening counts whatever follows.

    Args:
        tokenizer: a fast tokenizer; its own prefix space stays, no special token is added.
        family: what to compile.

    Returns:
        The trie; empty for a vocabulary that can not write one of the phrases.

    Raises:
        UsageError: for a family without a single word.
    """
    if not any(map(opening, family.phrases)):
        raise UsageError(f"family {family.name}: no phrase holds a word; a refusal is known by its first words.")
    # An unknown character is a special token too, and stands for anything.
    special = frozenset(tokenizer.all_special_ids)
    found = {ids for phrase in family.phrases for text in spellings(phrase) for ids in _tokenizations(tokenizer, text)}
    return PhraseTrie(family.name, tuple(ids for ids in found if special.isdisjoint(ids)))


def opening_tokens(tokenizer: Any, phrase: str) -> tuple[int, ...]:
    """The tokens of a phrase up to the one that ends its opening, which may reach beyond it.

    Args:
        tokenizer: a fast tokenizer.
        phrase: one phrase of a family.

    Returns:
        Vocabulary ids; none for a phrase without a word.
    """
    end = len(opening_text(phrase))
    encoded = tokenizer(phrase.strip(), add_special_tokens=False, return_offsets_mapping=True)
    starts = (start for start, _ in encoded["offset_mapping"])
    return tuple(i for i, start in zip(encoded["input_ids"], starts, strict=True) if start < end)


def spellings(phrase: str) -> tuple[str, ...]:
    """A phrase with plain and typographic apostrophes, each with its first letter in upper and in lower case.

    Args:
        phrase: one phrase of a family.

    Returns:
        One to four texts, in ascending order, that all open as the phrase does, see `opening`.
    """
    plain = phrase.strip().replace("\u2019", "'")
    texts = {cased for text in (plain, plain.replace("'", "\u2019")) for cased in (text, _other_case(text))}
    return tuple(sorted(text for text in texts if opening(text) == opening(phrase)))


def prefix_free(sequences: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The sequences in ascending order, each once, without those that begin with another one."""
    kept: list[tuple[int, ...]] = []
    for ids in sorted(sequences):
        # What begins with a sequence follows it at once in ascending order.
        if not kept or ids[: len(kept[-1])] != kept[-1]:
            kept.append(ids)
    return tuple(kept)


def _tokenizations(tokenizer: Any, phrase: str) -> Iterator[tuple[int, ...]]:
    """The opening of a phrase as the phrase continues it, and alone; nothing for a phrase without a word."""
    if text := opening_text(phrase):
        yield opening_tokens(tokenizer, phrase)
        yield tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _other_case(text: str) -> str:
    """The text with its first letter in the other case, or as it is where that is no single letter."""
    place = next((i for i, c in enumerate(text) if c.isalpha()), None)
    if place is None:
        return text
    turned = text[place].swapcase()
    return text[:place] + turned + text[place + 1 :] if len(turned) == 1 and turned.swapcase() == text[place] else text
