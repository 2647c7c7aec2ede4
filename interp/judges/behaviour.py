"""What a model did with every prompt, told from how its response begins."""

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

from interp.judges.classes import readable
from interp.judges.family import family_refuses
from interp.prompts.families import RefusalFamily, family_names, load_family

Behaviour = Literal["refused", "complied", "evasion", "empty", "broken"]


def behaviour(response: str) -> Behaviour:
    """What a response is: a refusal when it begins as any refusal family does, evasion aside.

    Returns:
        ``empty``, ``broken`` and ``evasion`` are neither refusals nor answers, and no probe should learn from them.
    """
    unreadable = readable(response)
    if unreadable is not None:
        return unreadable
    if family_refuses(response) is not None:
        return "refused"
    return "evasion" if family_refuses(response, _evasions()) is not None else "complied"


def as_refused(found: Sequence[Behaviour]) -> list[bool | None]:
    """True for refused, False for complied, None for all that is left out."""
    return [{"refused": True, "complied": False}.get(one) for one in found]


def tally(found: Sequence[Behaviour]) -> str:
    """The counts in words, such as ``12 refused, 30 complied; left out: 1 evasion, 0 empty, 0 broken``."""
    counts = {name: sum(one == name for one in found) for name in get_args(Behaviour)}
    words = [f"{count} {name}" for name, count in counts.items()]
    return f"{', '.join(words[:2])}; left out: {', '.join(words[2:])}"


@cache
def _evasions() -> tuple[RefusalFamily, ...]:
    return tuple(family for family in map(load_family, family_names()) if family.kind == "evasion")
