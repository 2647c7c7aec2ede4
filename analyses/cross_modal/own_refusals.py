"""The openings with which a model itself refuses, whole and not only their first token."""

from collections import Counter
from collections.abc import Sequence

from interp.judges import family_refuses, judged_families
from interp.prompts.families import RefusalFamily, opening

NAME = "own refusals"
MOST = 3
"""Most openings that are followed; models that refuse do so in a few words."""


def own_refusals(said: Sequence[str]) -> RefusalFamily | None:
    """The most frequent openings of a model's refusals, as a family of their own.

    Exact log-odds of a few openings cost a tenth of those of all families, and say as much of a model that uses no
    others.

    Args:
        said: what it answered, refusals among it.

    Returns:
        The phrases of the judged families that open as its refusals do; None where it refused nothing.
    """
    counts = Counter(opening(one) for one in said if family_refuses(one) is not None)
    if not counts:
        return None
    chosen = {start for start, _ in counts.most_common(MOST)}
    phrases: dict[tuple[str, ...], str] = {}
    for family in judged_families():
        for phrase in family.phrases:
            if opening(phrase) in chosen:
                phrases.setdefault(opening(phrase), phrase)
    return RefusalFamily(NAME, tuple(phrases.values()))
