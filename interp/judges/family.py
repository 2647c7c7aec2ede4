"""Judging by refusal families: a refusal is what begins as a phrase of some family does.

On the phrases of the families themselves this judge is right by construction; only other responses say how good it is.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from interp.prompts.families import RefusalFamily, family_names, load_family, opening

NOT_REFUSING = ("evasion",)
"""Kinds of families that a judge leaves out unless asked for: they change the subject and say no to nothing."""


@cache
def judged_families() -> tuple[RefusalFamily, ...]:
    """The bundled families, in every language, but for evasion."""
    families = map(load_family, family_names())
    return tuple(family for family in families if family.kind not in NOT_REFUSING)


def family_refuses(response: str, families: Sequence[RefusalFamily] | None = None) -> str | None:
    """The family that a response begins as.

    The rule is that of `RefusalFamily.opens`: the same first three words, or four Chinese characters. So it reads
    nothing that comes later, misses a refusal in words of its own, and is misled by an answer that happens to
    begin as a phrase does.

    Args:
        response: any text; an empty one begins as no family.
        families: those to look for; all bundled ones but evasion when not given.

    Returns:
        The name of the first family, in the order given, that has a phrase with the same opening; None for none.
    """
    start = opening(response)
    if not start:
        return None
    chosen = judged_families() if families is None else tuple(families)
    return _openings(chosen).get(start)


@lru_cache(maxsize=8)
def _openings(families: tuple[RefusalFamily, ...]) -> Mapping[tuple[str, ...], str]:
    """The family of every opening; made once, for comparing with every phrase takes a thousand times as long."""
    openings: dict[tuple[str, ...], str] = {}
    for family in families:
        for phrase in family.phrases:
            openings.setdefault(opening(phrase), family.name)
    return openings
