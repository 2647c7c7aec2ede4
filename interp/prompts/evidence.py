"""What tells two kinds of prompts apart, in words: one short phrase per surface."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from math import log, sqrt

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from interp.prompts.form import PUNCTUATION, origin, punctuation_features, said, template_tags, words_of
from interp.prompts.prompt import Prompt

NAMED = 3
LONGEST = 50
TELLING = 3.0
"""z-score from which a difference in shares is named; there are thousands of words, some differ by chance."""
SLIGHT = 0.2
"""Standardised mean difference below which a mark is not named."""

_Tags = Sequence[set[str]]


def evidence(surface: str, prompts: Sequence[Prompt], harmful: Bool[ndarray, " prompt"]) -> str:
    """Says what of a surface differs most between the harmful and the harmless prompts.

    Args:
        surface: one of `interp.prompts.surface.SURFACES`.
        prompts: at least one of each kind.
        harmful: which are harmful; the others count as harmless.

    Returns:
        Such as ``a picture in 50% of harmful, 0% of harmless``. It describes the whole set and is not held out.
    """
    bad = [p for p, yes in zip(prompts, harmful, strict=True) if yes]
    good = [p for p, yes in zip(prompts, harmful, strict=True) if not yes]
    if surface == "length":
        return f"{_middle_half(bad)} words in half of the harmful, {_middle_half(good)} in half of the harmless"
    if surface == "punctuation":
        return _marks(punctuation_features(bad), punctuation_features(good))
    if surface == "image":
        return _pictures([p.image is not None for p in bad], [p.image is not None for p in good])
    if surface == "dataset":
        return _origins([origin(p) for p in bad], [origin(p) for p in good])
    if surface == "template":
        return _frame([set(template_tags(p)) for p in bad], [set(template_tags(p)) for p in good])
    return _words([set(words_of(said(p).lower())) for p in bad], [set(words_of(said(p).lower())) for p in good])


def _middle_half(prompts: Sequence[Prompt]) -> str:
    """The quartiles of the number of words; two kinds can have the same median and yet be told apart."""
    low, high = np.quantile([len(words_of(said(p))) for p in prompts], [0.25, 0.75], method="nearest")
    return f"{low:.0f} to {high:.0f}"


def _pictures(bad: Sequence[bool], good: Sequence[bool]) -> str:
    if not any((*bad, *good)):
        return "no pictures"
    return "all have pictures" if all((*bad, *good)) else f"a picture in {_shares(bad, good)}"


def _origins(bad: Sequence[str], good: Sequence[str]) -> str:
    names = {*bad, *good}
    if max(abs(z) for _, z in _ranked([{name} for name in bad], [{name} for name in good])) >= TELLING:
        return f"harmful from {_commonest(bad)}; harmless from {_commonest(good)}"
    if names == {""}:
        return "the ids name no dataset"
    return f"all from {names.pop()}" if len(names) == 1 else f"{len(names)} origins, alike in both"


def _marks(bad: ndarray, good: ndarray) -> str:
    spread = np.sqrt((bad.var(0) + good.var(0)) / 2)
    gap = np.abs(bad.mean(0) - good.mean(0)) / np.where(spread > 0, spread, 1e-9)
    best = int(gap.argmax())
    if gap[best] < SLIGHT:
        return "no mark stands out"
    if PUNCTUATION[best].startswith(("ends", "starts")):
        return f"{PUNCTUATION[best]}: {_shares(bad[:, best] > 0, good[:, best] > 0)}"
    means = [float(np.expm1(side[:, best]).mean()) for side in (bad, good)]
    return f"{PUNCTUATION[best]} per prompt: {means[0]:.2g} in harmful, {means[1]:.2g} in harmless"


def _words(bad: _Tags, good: _Tags) -> str:
    ranked = _ranked(bad, good)
    more = ", ".join(word for word, z in ranked[:NAMED] if z >= TELLING)
    less = ", ".join(word for word, z in ranked[::-1][:NAMED] if z <= -TELLING)
    told = [f"more in {side}: {words}" for side, words in (("harmful", more), ("harmless", less)) if words]
    return "; ".join(told) or "no single word stands out"


def _frame(bad: _Tags, good: _Tags) -> str:
    ranked = _ranked(bad, good)
    tag, z = max(ranked, key=lambda r: abs(r[1]))
    if abs(z) < TELLING:
        return "no opening or ending stands out"
    shown = tag if len(tag) <= LONGEST else tag[: LONGEST - 3] + "..."
    return f"{shown!r} in {_shares((tag in t for t in bad), (tag in t for t in good))}"


def _ranked(bad: _Tags, good: _Tags) -> list[tuple[str, float]]:
    """Tags by how much likelier they are in harmful prompts: the z-score of the log odds ratio, largest first."""
    held = [Counter(tag for tags in side for tag in tags) for side in (bad, good)]
    scores = {}
    for tag in held[0].keys() | held[1].keys():
        a, b = held[0][tag] + 0.5, held[1][tag] + 0.5
        c, d = len(bad) + 1 - a, len(good) + 1 - b
        scores[tag] = (log(a * d) - log(b * c)) / sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _shares(bad: Iterable[object], good: Iterable[object]) -> str:
    shares = [sum(map(bool, found)) / len(found) for found in (list(bad), list(good))]
    # Rare things would all be 0 % of both.
    digits = 0 if max(shares) >= 0.05 else 1
    return f"{shares[0]:.{digits}%} of harmful, {shares[1]:.{digits}%} of harmless"


def _commonest(names: Iterable[Hashable]) -> str:
    counts = Counter(names)
    shown = ", ".join(f"{name or 'ids without a name'} ({n})" for name, n in counts.most_common(NAMED))
    return shown + (f" and {len(counts) - NAMED} more" if len(counts) > NAMED else "")
