"""Refusal families: the ways in which a model says no, each a list of phrasings."""

from dataclasses import dataclass
from importlib.resources import files

from interp.errors import UsageError


@dataclass(frozen=True, slots=True)
class RefusalFamily:
    """One way of refusing.

    Attributes:
        name: such as apology.
        phrases: whole sentences that open such a refusal.
    """

    name: str
    phrases: tuple[str, ...]

    def opens(self, response: str) -> bool:
        """Whether a response begins with the first three words of any phrase, upper and lower case alike."""
        start = _words(response)[:3]
        return bool(start) and any(_words(phrase)[:3] == start for phrase in self.phrases)


def family_names() -> list[str]:
    """The families that come with the package."""
    return sorted(f.name.removesuffix(".txt") for f in _folder().iterdir() if f.name.endswith(".txt"))


def load_family(name: str) -> RefusalFamily:
    """A family by name.

    Raises:
        UsageError: when there is none of this name.
    """
    if name not in family_names():
        raise UsageError(f"unknown refusal family {name!r}; choose one of {', '.join(family_names())}.")
    lines = (_folder() / f"{name}.txt").read_text("utf-8").splitlines()
    return RefusalFamily(name, tuple(line.strip() for line in lines if line.strip()))


def _folder():  # type: ignore[no-untyped-def]
    return files("interp.prompts") / "data" / "families"


def _words(text: str) -> list[str]:
    """Lower-case words without the punctuation at their edges; apostrophes inside are kept, in one spelling."""
    plain = text.lower().replace("\u2019", "'")
    return [word.strip(".,:;!?-\"'") for word in plain.split()]
