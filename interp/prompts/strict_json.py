"""JSON read strictly: standard constants only, each key once, and a reason in place of a traceback."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from reprlib import repr as shown

# Python refuses to convert longer digit strings by default; reading one must not depend on that setting.
MOST_DIGITS = 4000
BLANK = re.compile(r"[ \t\r\n]*")


class JsonError(ValueError):
    """Text that is not strict JSON; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A value, where its text ends, and what is wrong with it although it could be read."""

    value: object
    end: int
    fault: str | None

    def sound(self) -> object:
        """The value.

        Raises:
            JsonError: something is wrong with it.
        """
        if self.fault is not None:
            raise JsonError(self.fault)
        return self.value


class StrictDecoder:
    """A JSON decoder that tells faults it can read past (`Decoded.fault`) from text that ends the reading."""

    def __init__(self) -> None:
        self._fault: str | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._integer
        )

    def decode(self, text: str, start: int = 0) -> Decoded:
        """Reads the value that begins exactly at `start`.

        Raises:
            JsonError: the text from `start` does not begin with a value, or nests too deep.
        """
        self._fault = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            line = f"line {error.lineno}, " if error.lineno > 1 else ""
            raise JsonError(f"not JSON: {error.msg} ({line}column {error.colno})") from None
        except RecursionError:
            raise JsonError("not a prompt: lists or objects are nested too deep") from None
        return Decoded(value, end, self._fault)

    def parse(self, text: str) -> object:
        """Reads a text that holds one value and nothing else.

        Raises:
            JsonError: the text is not one strict JSON value.
        """
        decoded = self.decode(text, _after_blank(text, 0))
        end = _after_blank(text, decoded.end)
        if end < len(text):
            raise JsonError(f"not JSON: more text after the value (column {end + 1})")
        return decoded.sound()

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice = repeated(key for key, _ in pairs)
        if twice is not None:
            self._fault = f"key {shown(twice)} appears twice in one object"
        return dict(pairs)

    def _constant(self, word: str) -> None:
        self._fault = f"{word} is not JSON; write null or leave the key out"

    def _integer(self, digits: str) -> int | None:
        if len(digits) <= MOST_DIGITS:
            return int(digits)
        self._fault = f"a number of {len(digits)} digits"
        return None


class ArrayReader:
    """Iterates once over the elements of the array a text holds; `line` is where the latest one starts."""

    def __init__(self, text: str) -> None:
        self.line = 1
        self._text = text
        self._at = _after_blank(text, 0)

    def __iter__(self) -> Iterator[Decoded]:
        """Yields each element, also one with a fault.

        Raises:
            JsonError: the array can not be read on.
        """
        decoder, lined = StrictDecoder(), 0
        self._take("[", "not an array of objects; name a file with one object on each line .jsonl")
        more = not self._is_at("]")
        while more:
            self.line += self._text.count("\n", lined, self._at)
            lined = self._at
            element = decoder.decode(self._text, self._at)
            yield element
            self._at = _after_blank(self._text, element.end)
            more = self._is_at(",")
            if more:
                self._take(",")
        self._take("]", "not JSON: after this record comes neither a comma nor the end of the array")
        if self._at < len(self._text):
            raise JsonError("not JSON: more text after the array")

    def _is_at(self, mark: str) -> bool:
        return self._text.startswith(mark, self._at)

    def _take(self, mark: str, otherwise: str = "") -> None:
        """Moves past a mark and the blank after it."""
        if not self._is_at(mark):
            raise JsonError(otherwise)
        self._at = _after_blank(self._text, self._at + len(mark))


def _after_blank(text: str, start: int) -> int:
    """The first place from `start` on that is not JSON white space."""
    blank = BLANK.match(text, start)
    return start if blank is None else blank.end()


def repeated(names: Iterable[str]) -> str | None:
    """The first name that is there more than once, None where all differ."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
