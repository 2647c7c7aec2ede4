"""Refusal families: the ways in which a model says no, each a list of phrasings; and decoys, which only sound so."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from interp.errors import UsageError

OPENING_WORDS = 3
OPENING_CHARACTERS = 4
"""How much of a phrase its opening is: in words, or in characters of a script that is written without spaces."""

_ENDS = ".,:;!?-\"'…。，！？、：；“”।؟،¿¡«»„"


@dataclass(frozen=True, slots=True)
class RefusalFamily:
    """One way of refusing.

    Attributes:
        name: such as apology, or apology.zh for one in another language than English.
        phrases: whole sentences that open such a refusal.
    """

    name: str
    phrases: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The way of refusing whatever the language, such as apology."""
        return self.name.partition(".")[0]

    @property
    def language(self) -> str:
        """The ISO 639-1 code of its language; en where the name gives none."""
        return self.name.partition(".")[2] or "en"

    def opens(self, response: str) -> bool:
        """Whether a response begins as any phrase does: its first three words, upper and lower case alike.

        In scripts written without spaces between words (Chinese) it is the first four characters.
        """
        start = opening(response)
        return bool(start) and any(opening(phrase) == start for phrase in self.phrases)


def family_names() -> list[str]:
    """The families that come with the package."""
    return _names("families")


def load_family(name: str) -> RefusalFamily:
    """A family by name, or one of the user's from a text file of one phrase per line.

    Args:
        name: one of `family_names`, or the path of a file that ends in ``.txt``; its stem is then the name.

    Raises:
        UsageError: when there is none of this name, or the file holds no phrase, one twice or no UTF-8.
    """
    if name.endswith(".txt"):
        return RefusalFamily(Path(name).name.removesuffix(".txt"), _read_phrases(Path(name)))
    if name not in family_names():
        raise UsageError(
            f"unknown refusal family {name!r}; choose one of {', '.join(family_names())}, or a .txt file of phrases."
        )
    return RefusalFamily(name, _bundled("families", name))


def decoy_names() -> list[str]:
    """The decoys that come with the package: about, complies and sorry."""
    return _names("decoys")


def load_decoys(name: str) -> tuple[str, ...]:
    """Texts that carry the words of refusals and are none.

    Args:
        name: ``sorry`` (openings that apologise and comply), ``complies`` (openings that comply with words of any
            family) or ``about`` (texts about refusing).

    Raises:
        UsageError: when there are none of this name.
    """
    if name not in decoy_names():
        raise UsageError(f"unknown decoys {name!r}; choose one of {', '.join(decoy_names())}.")
    return _bundled("decoys", name)


def answer_languages() -> list[str]:
    """The languages of which the package has ordinary answers."""
    return _names("answers")


def load_answers(language: str) -> tuple[str, ...]:
    """How ordinary helpful answers begin in one language: what refusals in it must be told from.

    Raises:
        UsageError: when there are none in this language.
    """
    if language not in answer_languages():
        raise UsageError(f"no answers in language {language!r}; choose one of {', '.join(answer_languages())}.")
    return _bundled("answers", language)


def opening(text: str) -> tuple[str, ...]:
    """The first three words of a text, lower-case and without punctuation, or its first four Chinese characters."""
    words = _words(text)
    if words and _is_ideographic(words[0][0]):
        return tuple(c for word in words for c in word if c not in _ENDS)[:OPENING_CHARACTERS]
    return tuple(words[:OPENING_WORDS])


def opening_text(phrase: str) -> str:
    """The opening of a phrase as it is written: its start up to the end of what `opening` takes, edge punctuation off.

    Args:
        phrase: any text.

    Returns:
        Such as ``I'm sorry, but``. A phrase shorter than an opening comes back whole, final punctuation included,
        since nothing else tells it from a longer phrase of the same words; empty when it holds no word.
    """
    phrase, ends = phrase.strip(), _ENDS + "\u2019"
    words = [(m.start(), m.start() + len(m[0].rstrip(ends))) for m in re.finditer(r"\S+", phrase) if m[0].strip(ends)]
    if not words:
        return ""
    start, end = words[0]
    if _is_ideographic(phrase[start:end].lstrip(ends)[0].lower()):
        places = [i + 1 for i, c in enumerate(phrase) if c not in ends and not c.isspace()]
        return phrase[: places[OPENING_CHARACTERS - 1]] if len(places) >= OPENING_CHARACTERS else phrase
    return phrase[: words[OPENING_WORDS - 1][1]] if len(words) >= OPENING_WORDS else phrase


def _words(text: str) -> list[str]:
    """Lower-case words without the punctuation at their edges; apostrophes inside are kept, in one spelling."""
    plain = text.lower().replace("\u2019", "'")
    return [bare for word in plain.split() if (bare := word.strip(_ENDS))]


def _is_ideographic(character: str) -> bool:
    return "\u3040" <= character <= "\u9fff"


def _read_phrases(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can not be read as UTF-8 text of one phrase per line: {error}.") from error
    phrases = tuple(line.strip() for line in lines if line.strip())
    if not phrases:
        raise UsageError(f"{path}: holds no phrase; write one per line.")
    twice = next((p for p in phrases if phrases.count(p) > 1), None)
    if twice is not None:
        raise UsageError(f"{path}: the phrase {twice!r} stands there twice; keep one.")
    return phrases


def _bundled(folder: str, name: str) -> tuple[str, ...]:
    text = (_data(folder) / f"{name}.txt").read_text("utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _names(folder: str) -> list[str]:
    return sorted(f.name.removesuffix(".txt") for f in _data(folder).iterdir() if f.name.endswith(".txt"))


def _data(folder: str):  # type: ignore[no-untyped-def]
    return files("interp.prompts") / "data" / folder
