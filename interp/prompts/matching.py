"""Matched subsets: harmful and harmless prompts in pairs of like form, or the reason why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from interp.errors import UsageError
from interp.prompts.evidence import evidence
from interp.prompts.form import LENGTH, PUNCTUATION, length_features, punctuation_features
from interp.prompts.leaks import Leak, find_leaks
from interp.prompts.pairing import pair_groups, paired, strata
from interp.prompts.prompt import Prompt, PromptSet

BALANCED = 0.1
"""Largest standardised mean difference that counts as balance (Austin 2009)."""
NEARLY_CHANCE = 0.55
FEWEST_PAIRS = 20
_SHRINK = 0.9


@dataclass(frozen=True, slots=True)
class Match:
    """A subset in which the form no longer tells the label, or why there is none.

    Attributes:
        pairs: (id of the harmful, id of the harmless prompt), most alike first; empty without a subset.
        differences: the standardised mean difference of every feature of form, at most 0.1 each.
        leaks: what the surfaces still give away in the subset; a pair is never parted.
        refusal: why there is no subset; empty where there is one.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    differences: tuple[tuple[str, float], ...] = ()
    leaks: tuple[Leak, ...] = ()
    refusal: str = ""

    def subset(self, prompts: PromptSet) -> PromptSet:
        """The matched prompts in the order of the set.

        Raises:
            UsageError: there is no subset.
        """
        if not self.pairs:
            raise UsageError(f"{prompts.name}: no matched subset: {self.refusal}.")
        kept = {prompt_id for pair in self.pairs for prompt_id in pair}
        return replace(prompts, name=f"{prompts.name}, matched", prompts=tuple(p for p in prompts if p.id in kept))


def match(prompts: Sequence[Prompt], *, seed: int = 0) -> Match:
    """Pairs each harmful prompt with a harmless one of like length and punctuation, and keeps what is balanced.

    Pairs are made within one dataset, split and presence of a picture; the two kinds of a group go together first. With
    the most alike first, the longest row of pairs is kept in which every standardised mean difference is at most 0.1
    and neither length nor punctuation tells the label (AUROC at most 0.55, or an interval that holds 0.5).

    Args:
        prompts: all with a label, at least one of each kind.
        seed: of folds and bootstrap.

    Returns:
        At least 20 pairs, or a refusal.
    """
    features = np.hstack([length_features(prompts), punctuation_features(prompts)])
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread > 0, spread, 1.0)
    if all(len(bad) == 0 or len(good) == 0 for bad, good in strata(prompts)):
        return Match(refusal=_apart(prompts))
    pairs = paired(prompts, scaled)
    if len(pairs) < FEWEST_PAIRS:
        return Match(
            refusal=f"only {len(pairs)} pairs of one dataset, split and presence of a picture can be made; "
            f"fewer than {FEWEST_PAIRS} say nothing"
        )
    return _balanced(prompts, features, pairs, seed)


def standardised_differences(
    bad: Float[ndarray, "pair feature"], good: Float[ndarray, "pair feature"]
) -> Float[ndarray, "pair feature"]:
    """The standardised mean difference of the first 1, 2, ... pairs, by the standard deviations of these very pairs.

    Returns:
        At least 0; 0 where both sides are constant and equal, inf where they are constant and differ.
    """
    n = np.arange(1, len(bad) + 1)[:, None]
    means = [side.cumsum(0) / n for side in (bad, good)]
    # Rounding can leave a tiny negative variance, or a tiny one where there is none.
    variances = [(side**2).cumsum(0) / n - mean**2 for side, mean in zip((bad, good), means, strict=True)]
    spread = np.sqrt(np.maximum(sum(variances) / 2, 0.0))
    gap = np.abs(means[0] - means[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap < 1e-9, 0.0, np.where(spread < 1e-6, np.inf, gap / spread))


def _balanced(
    prompts: Sequence[Prompt], features: Float[ndarray, "prompt feature"], pairs: Int[ndarray, "pair two"], seed: int
) -> Match:
    differences = standardised_differences(features[pairs[:, 0]], features[pairs[:, 1]])
    sizes = np.flatnonzero(differences.max(1) <= BALANCED) + 1
    sizes = sizes[sizes >= FEWEST_PAIRS]
    largest, told = len(pairs) + 1.0, ""
    for size in sizes[::-1]:
        if size > largest:
            continue
        leaks, told = _remaining(prompts, pairs[:size], seed)
        if not told:
            kept = tuple((prompts[i].id, prompts[j].id) for i, j in pairs[:size])
            names = (*LENGTH, *PUNCTUATION)
            return Match(kept, tuple(zip(names, differences[size - 1].tolist(), strict=True)), leaks)
        largest = size * _SHRINK
    return Match(refusal=told or _unbalanced(differences))


def _remaining(prompts: Sequence[Prompt], pairs: Int[ndarray, "pair two"], seed: int) -> tuple[tuple[Leak, ...], str]:
    """What is left of the leaks in these pairs, and what of it forbids the subset, in words."""
    chosen = pairs.ravel()
    kept = [prompts[i] for i in chosen]
    groups = pair_groups(kept)
    leaks = find_leaks(kept, groups, surfaces=("length", "punctuation"), seed=seed)
    if not leaks:
        return (), "groups tie the pairs together, so that nothing can be held out"
    for leak in leaks:
        if leak.auroc.value > NEARLY_CHANCE and leak.auroc.lo > 0.5:
            return leaks, (
                f"the pairs are balanced feature by feature, yet {leak.surface} still tells the label "
                f"(AUROC {leak.auroc.value:.2f} [{leak.auroc.lo:.2f}, {leak.auroc.hi:.2f}])"
            )
    rest = find_leaks(kept, groups, surfaces=("words", "template", "image", "dataset"), seed=seed)
    return (*leaks, *rest), ""


def _unbalanced(differences: Float[ndarray, "pair feature"]) -> str:
    fewest = differences[FEWEST_PAIRS - 1]
    worst = int(fewest.argmax())
    name = (*LENGTH, *PUNCTUATION)[worst]
    alike = f"no {FEWEST_PAIRS} pairs or more are alike enough: in the {FEWEST_PAIRS} most alike"
    if not np.isfinite(fewest[worst]):
        return f"{alike}, '{name}' is one thing in all harmful and another in all harmless prompts"
    return f"{alike}, '{name}' differs by {fewest[worst]:.1f} standard deviations ({BALANCED} is allowed)"


def _apart(prompts: Sequence[Prompt]) -> str:
    harmful = np.array([p.label == "harmful" for p in prompts])
    for name in ("dataset", "image"):
        if all(len(b) == 0 or len(g) == 0 for b, g in strata(prompts, only=name)):
            return (
                f"the {name} alone parts all harmful from all harmless prompts ({evidence(name, prompts, harmful)}); "
                "add prompts of both kinds from one source"
            )
    return "no dataset holds both kinds in one split"
