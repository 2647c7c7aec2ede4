"""The form of a prompt, as numbers and tags: its length, its marks, its frame, where it came from."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from interp.prompts.fields import LABEL_WORDS
from interp.prompts.prompt import Prompt

LENGTH = ("words", "characters", "sentences")
MARKS = {
    "commas": ",،，、",
    "full stops": ".。।",
    "question marks": "?？؟",
    "exclamation marks": "!！",
    "colons": ":;：；",
    "quotation marks": "\"“”„«»「」'‘’",
    "brackets": "()[]{}<>（）",
    "dashes": "-–—",
    "line breaks": "\n",
}
FINAL = {"full stop": MARKS["full stops"], "question mark": MARKS["question marks"], "exclamation mark": "!！"}
PUNCTUATION = (
    *MARKS,
    "other marks",
    "capitals",
    "digits",
    *(f"ends with a {mark}" for mark in FINAL),
    "ends with a letter or digit",
    "starts with a capital",
    "starts with a question word",
)
_ASKING = "how what why when where who whom whose which can could is are do does did should would will"
QUESTION_WORDS = frozenset(_ASKING.split())
FRAME_WORDS = 6
"""How many words at the start and at the end of a prompt can be its frame."""
SHARED = 3
"""An opening or an origin of fewer prompts is one of its own and tells nothing of others."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_SENTENCE = re.compile(r"[.!?。！？।؟]+(?:\s|$)|[。！？]|\n+")
_KNOWN_MARKS = "".join(MARKS.values())


def origins(prompts: Sequence[Prompt]) -> list[str]:
    """The origin of each prompt, the same empty one for all whose origin fewer than three share."""
    names = [origin(p) for p in prompts]
    counts = Counter(names)
    return [name if counts[name] >= SHARED else "" for name in names]


def words_of(text: str) -> list[str]:
    """The words of a text as written; apostrophes inside are part of a word."""
    return _WORD.findall(text)


def said(prompt: Prompt) -> str:
    """What is said before the answer, system message aside: the text of all other turns, a line each."""
    return "\n".join(m.content for m in prompt.messages if m.role != "system")


def length_features(prompts: Sequence[Prompt]) -> Float[ndarray, "prompt feature"]:
    """The logarithm of one plus the number of words, characters and sentences, the columns of `LENGTH`."""
    return np.log1p(np.array([_lengths(said(p)) for p in prompts], dtype=np.float64).reshape(-1, len(LENGTH)))


def punctuation_features(prompts: Sequence[Prompt]) -> Float[ndarray, "prompt feature"]:
    """The logarithm of one plus each count, and 0 or 1 for how a prompt ends and starts: columns of `PUNCTUATION`."""
    return np.array([_marks(said(p)) for p in prompts], dtype=np.float64).reshape(-1, len(PUNCTUATION))


def template_tags(prompt: Prompt) -> list[str]:
    """The system message, the roles of the turns, and the first and the last one to six words of a prompt."""
    words = said(prompt).lower().split()
    tags = [f"system: {m.content}" for m in prompt.messages if m.role == "system"]
    tags.append(f"turns: {' '.join(m.role for m in prompt.messages)}")
    # A prompt is no frame of itself: one with few words has only parts of it as tags.
    sizes = range(1, min(FRAME_WORDS, len(words) - 1) + 1)
    return tags + [f"{' '.join(words[:k])} ..." for k in sizes] + [f"... {' '.join(words[-k:])}" for k in sizes]


def origin(prompt: Prompt) -> str:
    """The dataset a prompt seems to come from: its id up to the last number, words for its label left out.

    Returns:
        Such as ``advbench`` for ``advbench-00012``; the whole id where it holds no number.
    """
    number = re.search(r"\d+(?!.*\d)", prompt.id, flags=re.DOTALL)
    words = re.split(r"[\W_]+", prompt.id[: number.start()] if number else prompt.id)
    return "-".join(w for w in words if w and w.lower() not in LABEL_WORDS)


def _lengths(text: str) -> tuple[int, int, int]:
    # A script without spaces is one long word; there the characters tell the length.
    return len(words_of(text)), len(text), len(list(filter(str.strip, _SENTENCE.split(text))))


def _marks(text: str) -> list[float]:
    counts = [sum(map(text.count, marks)) for marks in MARKS.values()]
    other = sum(not (c.isalnum() or c.isspace() or c in _KNOWN_MARKS) for c in text)
    capitals, digits = sum(map(str.isupper, text)), sum(map(str.isdigit, text))
    bare = text.strip()
    first, last = bare[:1], bare[-1:]
    word = _WORD.match(bare.lower())
    return [
        *np.log1p([*counts, other, capitals, digits]).tolist(),
        *(float(last in marks) for marks in FINAL.values()),
        float(last.isalnum()),
        float(first.isupper()),
        float(word is not None and word[0] in QUESTION_WORDS),
    ]
