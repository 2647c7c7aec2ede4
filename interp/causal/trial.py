"""Interventions beside their placebos, in one table: is it needed for refusing, does it suffice, what else it does.

Necessity is read from harmful prompts: taking it out should lower the refusal. Sufficiency is read from harmless ones:
putting it in should raise it. Neither follows from the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from interp.causal.ascent import Ascent
from interp.causal.edits import Edit
from interp.causal.effects import answers, refusal_log_odds, side_effects
from interp.judges import family_refuses
from interp.models.adapter import Adapter
from interp.models.teacher_forcing import Divergence, answer_log_probs, remembering
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import PromptSet
from interp.stats import Estimate, bootstrap_mean, group_weights, wilson

COLUMNS = ("intervention", "placebo", "prompts", "metric", "value", "lo", "hi", "n")
UNEDITED = "none"
UNLABELLED = "unlabelled"


@dataclass(frozen=True, slots=True)
class Intervention:
    """Some edits that act together, under a name.

    Attributes:
        name: what is intervened on; a placebo bears the name of what it stands beside.
        edits: rows of patches in the order of the prompts.
        placebo: which placebo it is, such as ``random 0``; empty for the real thing.
    """

    name: str
    edits: tuple[Edit, ...]
    placebo: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found for every prompt: refusal log-odds in nats, and whether the greedy answer was judged a refusal."""

    log_odds: Float[ndarray, " prompt"]
    refused: Bool[ndarray, " prompt"]
    answers: list[str]


def trial(
    adapter: Adapter,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    families: Sequence[RefusalFamily],
    *,
    tokens: int = 24,
    floor: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures every intervention on the same prompts, and the model without any.

    Args:
        adapter: any backend.
        prompts: harmful and harmless ones; those without a label are counted apart.
        interventions: real ones and placebos.
        families: what counts as a refusal, both in the log-odds and in judging the answers
            (`interp.judges.family_refuses`).
        tokens: most tokens of an answer, judged and read for side effects.
        floor: as of `refusal_log_odds`.
        seed: of the bootstrap.

    Returns:
        One row per intervention (``none`` for the model alone), placebo (empty for the real thing), kind of prompts
        and metric, with value, lo, hi and n:

        - ``log_odds``, ``log_odds_change``: of refusing, in nats; the change is edited minus unedited.
        - ``refused`` (share, Wilson interval), ``refused_change`` (paired difference of shares, -1 to 1).
        - ``kl``: KL(unedited || edited) in nats per token along the unedited answers. On harmless prompts it is a side
          effect; on those that the edit should change it is not.
        - ``kl_answered``: the same over prompts that the unedited model did not refuse: on harmless prompts it leaves
          out those on which losing the refusal is the effect.
        - ``perplexity_unedited``, ``perplexity``: of these answers, the exponential of the mean over prompts of nats
          per token; empty answers are left out.

        Intervals other than Wilson's resample groups of prompts. Where n is 0, all is NaN.

    Raises:
        UsageError, ModelError: as `editing` and `family_mass`.
    """
    measured = partial(_found, adapter, prompts, families, tokens, floor)
    ascent = Ascent.of(adapter, prompts.prompts)
    kinds, units = _kinds(prompts), np.array([p.unit for p in prompts])
    before, unedited = measured(()), remembering(partial(answer_log_probs, adapter.model))
    rows = [(UNEDITED, "", *row) for row in _levels(before, kinds, units, seed)]
    for intervention in interventions:
        after = measured(intervention.edits)
        edits, said = intervention.edits, before.answers
        with ascent.below(min(layer for edit in edits for layer in edit.at_layers(adapter.n_layers))):
            beside = side_effects(adapter, prompts.prompts, said, edits, tokens=tokens, unedited=unedited)
        found = [*_levels(after, kinds, units, seed), *_changes(before, after, beside, kinds, units, seed)]
        rows += [(intervention.name, intervention.placebo, *row) for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _found(
    adapter: Adapter,
    prompts: PromptSet,
    families: Sequence[RefusalFamily],
    tokens: int,
    floor: float,
    edits: Sequence[Edit],
) -> _Found:
    said = answers(adapter, prompts.prompts, edits, tokens=tokens)
    log_odds = refusal_log_odds(adapter, prompts.prompts, families, edits, floor=floor)
    refused = np.array([family_refuses(one, families) is not None for one in said])
    return _Found(log_odds.numpy(), refused, said)


Row = tuple[str, str, float, float, float, int]
Kinds = dict[str, Bool[ndarray, " prompt"]]


def _kinds(prompts: PromptSet) -> Kinds:
    labels = np.array([p.label or UNLABELLED for p in prompts])
    return {str(label): labels == label for label in dict.fromkeys(labels)}


def _levels(found: _Found, kinds: Kinds, units: ndarray, seed: int) -> Iterator[Row]:
    yield from _means("log_odds", found.log_odds, kinds, units, seed, _same)
    for kind, chosen in kinds.items():
        yield _row(kind, "refused", wilson(int(found.refused[chosen].sum()), int(chosen.sum())))


def _changes(
    before: _Found, after: _Found, beside: Divergence, kinds: Kinds, units: ndarray, seed: int
) -> Iterator[Row]:
    measures: dict[str, tuple[ndarray, Callable[[float], float]]] = {
        "log_odds_change": (after.log_odds - before.log_odds, _same),
        "refused_change": (after.refused.astype(float) - before.refused, _same),
        "kl": (beside.kl.numpy(), _same),
        "kl_answered": (np.where(before.refused, np.nan, beside.kl.numpy()), _same),
        "perplexity_unedited": (beside.loss.numpy(), np.exp),
        "perplexity": (beside.other_loss.numpy(), np.exp),
    }
    for metric, (values, scale) in measures.items():
        yield from _means(metric, values, kinds, units, seed, scale)


def _means(
    metric: str,
    values: Float[ndarray, " prompt"],
    kinds: Kinds,
    units: ndarray,
    seed: int,
    scale: Callable[[float], float],
) -> Iterator[Row]:
    """Means over the prompts of each kind that have a value, with intervals over their groups."""
    for kind, chosen in kinds.items():
        there = chosen & ~np.isnan(values)
        if not there.any():
            yield _row(kind, metric, Estimate(np.nan, np.nan, np.nan, 0))
            continue
        weights = group_weights(units[there].tolist(), seed=seed)
        value, lo, hi = (float(scale(float(v))) for v in bootstrap_mean(values[there], weights))
        yield _row(kind, metric, Estimate(value, lo, hi, int(there.sum())))


def _row(kind: str, metric: str, found: Estimate) -> Row:
    return (kind, metric, found.value, found.lo, found.hi, found.n)


def _same(value: float) -> float:
    return value
