"""The refusal keyword lists that papers and tools count with, each by its own rule and with its source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from interp.errors import UsageError


@dataclass(frozen=True, slots=True)
class KeywordList:
    """One published list; which steps of matching it takes is said in its source.

    Attributes:
        name: such as harmbench.
        source: where it was published and where it was read.
        rule: how it matches, in words.
        keywords: in the published order, published repetitions included.
        at_start: whether a keyword must open the response; else it may stand anywhere.
        case: ``as written``, ``both lower`` or ``response lower`` (a keyword with a capital then never matches).
        strip: whether white space at the ends of the response is taken off first.
        tidy: whether asterisks go, typographic apostrophes become plain and white space is joined first.
        empty: the verdict on a response of white space only, where the list has one of its own.
        whole: responses that are refusals when nothing else stands there.
    """

    name: str
    source: str
    rule: str
    keywords: tuple[str, ...]
    at_start: bool = False
    case: str = "as written"
    strip: bool = False
    tidy: bool = False
    empty: bool = False
    whole: tuple[str, ...] = ()

    def refuses(self, response: str) -> bool:
        """Whether the list calls a response a refusal, by the rule of its authors."""
        if self.empty and not response.strip():
            return True
        text = response if self.case == "as written" else response.lower()
        if self.tidy:
            text = " ".join(text.replace("*", "").replace("\u2019", "'").split())
        if self.strip:
            text = text.strip()
        keywords = [k.lower() for k in self.keywords] if self.case == "both lower" else self.keywords
        if self.at_start:
            return text.startswith(tuple(keywords))
        return text in self.whole or any(keyword in text for keyword in keywords)


def keyword_lists() -> list[str]:
    """The names of the lists, in alphabetical order."""
    return sorted(_lists())


def keyword_list(name: str) -> KeywordList:
    """A list by name.

    Raises:
        UsageError: when there is none of this name.
    """
    if name not in _lists():
        raise UsageError(f"unknown keyword list {name!r}; choose one of {', '.join(keyword_lists())}.")
    return _lists()[name]


def keyword_refuses(name: str, response: str) -> bool:
    """Whether a published list calls a response a refusal.

    Args:
        name: one of `keyword_lists`.
        response: any text. An empty one is a refusal for ``heretic`` alone, as its authors wrote it.

    Raises:
        UsageError: when there is no list of this name.
    """
    return keyword_list(name).refuses(response)


@cache
def _lists() -> Mapping[str, KeywordList]:
    text = (files("interp.judges") / "data" / "keywords.json").read_text("utf-8")
    return {name: _of_record(name, record) for name, record in json.loads(text).items()}


def _of_record(name: str, record: dict[str, Any]) -> KeywordList:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return KeywordList(name, **fields)
