"""How far judges agree with each other, and with what is known of the responses."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.errors import UsageError
from interp.stats import LEVEL, Estimate, group_weights, wilson

Verdict = Bool[ndarray, " response"]


def cohen_kappa(
    first: Verdict, second: Verdict, weights: Float[ndarray, "resample response"] | None = None
) -> Estimate:
    """How far two judges agree beyond chance (Cohen 1960).

    Args:
        first: what one judge says of each response, True for a refusal.
        second: what the other says of the same responses.
        weights: how often each response is drawn per resample, from `interp.stats.group_weights`.

    Returns:
        Kappa in [-1, 1], 0 for chance and 1 for full agreement, its 95 % percentile interval and the number of
        responses. Kappa is NaN when both judges are constant, be it in the same way or in opposite ones, and when
        there is no response: without variation agreement can not be told from chance. lo and hi are NaN without
        weights; resamples in which both judges are constant are left out.
    """
    value = float(_kappas(first, second, np.ones((1, len(first))))[0])
    lo = hi = float("nan")
    drawn = np.empty(0) if weights is None else _kappas(first, second, weights)
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn):
        tail = (1 - LEVEL) / 2
        lo, hi = (float(q) for q in np.quantile(drawn, [tail, 1 - tail]))
    return Estimate(value, lo, hi, len(first))


def agreement_table(
    verdicts: Mapping[str, Verdict], groups: Sequence[str], *, unreadable: Verdict | None = None, seed: int = 0
) -> pd.DataFrame:
    """Cohen's kappa of every two judges.

    Args:
        verdicts: by judge, what it says of each response, True for a refusal.
        groups: the group of each response; whole groups are resampled together.
        unreadable: which responses are empty or broken; they are left out and counted.
        seed: of the resampling.

    Returns:
        first, second, kappa, lo, hi (95 %), n (responses compared) and left_out, one row per pair. kappa, lo and
        hi are NaN as in `cohen_kappa`; lo and hi also where there are fewer than two groups.

    Raises:
        UsageError: when the numbers of verdicts and groups differ.
    """
    _same_length(len(groups), verdicts)
    kept = _kept(len(groups), unreadable)
    names = [group for group, keep in zip(groups, kept, strict=True) if keep]
    weights = group_weights(names, seed=seed) if len(set(names)) > 1 else None
    rows = []
    for first, second in combinations(verdicts, 2):
        found = cohen_kappa(verdicts[first][kept], verdicts[second][kept], weights)
        rows.append((first, second, found.value, found.lo, found.hi, found.n, int((~kept).sum())))
    return pd.DataFrame(rows, columns=["first", "second", "kappa", "lo", "hi", "n", "left_out"])


def kappa_matrix(pairs: pd.DataFrame) -> pd.DataFrame:
    """The kappas of an `agreement_table` as a square.

    Returns:
        One row and one column per judge, in the order of the table, the same on both sides of the diagonal; the
        diagonal is 1, NaN elsewhere where the table has NaN.
    """
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for first, second, kappa in zip(pairs["first"], pairs["second"], pairs["kappa"], strict=True):
        matrix.loc[first, second] = matrix.loc[second, first] = kappa
    return matrix


def refusal_rates(verdicts: Mapping[str, Verdict], *, unreadable: Verdict | None = None) -> pd.DataFrame:
    """How many responses each judge calls refusals.

    Args:
        verdicts: by judge, what it says of each response, True for a refusal.
        unreadable: which responses are empty or broken; they are left out.

    Returns:
        judge, rate, lo, hi (Wilson, 95 %) and n, the number of readable responses. rate is NaN where n is 0.
    """
    rows = []
    for judge, verdict in verdicts.items():
        kept = verdict[_kept(len(verdict), unreadable)]
        rate = wilson(int(kept.sum()), len(kept))
        rows.append((judge, rate.value, rate.lo, rate.hi, rate.n))
    return pd.DataFrame(rows, columns=["judge", "rate", "lo", "hi", "n"])


def recall_by_family(
    verdicts: Mapping[str, Verdict], families: Sequence[str], refused: Verdict, *, unreadable: Verdict | None = None
) -> pd.DataFrame:
    """What every judge finds of the refusals of each family, and how often it fires on what complied.

    Args:
        verdicts: by judge, what it says of each response, True for a refusal.
        families: the true family of each response; an empty string where unknown and for what complied.
        refused: which responses are refusals in truth.
        unreadable: which responses are empty or broken; they are left out.

    Returns:
        judge, measure, family, rate, lo, hi (Wilson, 95 %) and n. One row per judge and family of measure
        ``recall``, families in order of first appearance, and one of measure ``false alarms`` over all that
        complied, its family empty. rate is NaN where n is 0.

    Raises:
        UsageError: when the numbers of verdicts, families and truths differ.
    """
    _same_length(len(families), {**verdicts, "refused": refused})
    kept = _kept(len(families), unreadable)
    named = np.array(families, dtype=object)
    chosen = {("recall", family): kept & refused & (named == family) for family in dict.fromkeys(named[kept & refused])}
    chosen["false alarms", ""] = kept & ~refused
    rows = []
    for judge, verdict in verdicts.items():
        for (measure, family), where in chosen.items():
            rate = wilson(int(verdict[where].sum()), int(where.sum()))
            rows.append((judge, measure, family, rate.value, rate.lo, rate.hi, rate.n))
    return pd.DataFrame(rows, columns=["judge", "measure", "family", "rate", "lo", "hi", "n"])


def _kappas(
    first: Verdict, second: Verdict, weights: Float[ndarray, "resample response"]
) -> Float[ndarray, " resample"]:
    """Kappa of every resample, NaN where each judge is constant."""
    total = weights.sum(1)
    yes, also, both = weights @ first, weights @ second, weights @ (first & second)
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = (total - yes - also + 2 * both) / total
        chance = (yes * also + (total - yes) * (total - also)) / total**2
        kappa = (agreed - chance) / (1 - chance)
    varied = ((yes > 0) & (yes < total)) | ((also > 0) & (also < total))
    return np.asarray(np.where(varied, kappa, np.nan))


def _kept(n: int, unreadable: Verdict | None) -> Verdict:
    return np.ones(n, dtype=bool) if unreadable is None else ~unreadable


def _same_length(n: int, verdicts: Mapping[str, Verdict]) -> None:
    for judge, verdict in verdicts.items():
        if len(verdict) != n:
            raise UsageError(f"{judge!r} has {len(verdict)} verdicts for {n} responses; give one per response.")
