"""The openings with which a model itself refuses, whole and not only their first token."""

from collections import Counter
from collections.abc import Iterable, Sequence

from interp.judges import family_refuses, judged_families
from interp.prompts.families import RefusalFamily, load_family, opening

NAME, DEFAULT = "own refusals", "apology"
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
    return _of_openings([start for start, _ in counts.most_common(MOST)], judged_families()) if counts else None


def default_refusals() -> RefusalFamily:
    """The first openings of the apology family, in which a model is read that refuses nothing."""
    family = load_family(DEFAULT)
    return _of_openings(list(dict.fromkeys(map(opening, family.phrases)))[:MOST], [family])


def _of_openings(chosen: Sequence[tuple[str, ...]], families: Iterable[RefusalFamily]) -> RefusalFamily:
    phrases: dict[tuple[str, ...], str] = {}
    for family in families:
        for phrase in family.phrases:
            if opening(phrase) in chosen:
                phrases.setdefault(opening(phrase), phrase)
    return RefusalFamily(NAME, tuple(phrases.values()))
