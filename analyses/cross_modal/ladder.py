"""The ladder of pictures: how much of what a picture does to refusal is due to any image, and how much to its content.

The same question is asked over every rung (`analyses.cross_modal.rungs`), and neighbouring rungs are compared within
pairs. A model whose refusal falls as soon as an image is there, whatever it shows, has a modality gap; one that only
answers to the real picture sees its content.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray

from analyses.cross_modal.questions import different
from analyses.cross_modal.resampled import Weights, as_rows, mean_of, rate_of
from analyses.cross_modal.rungs import NONE, REAL, RUNGS, TWIN, ZERO
from interp.causal import answers, refusal_log_odds, states_at
from interp.errors import UsageError
from interp.judges import behaviour
from interp.models.adapter import Adapter
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt
from interp.stats import bootstrap_mean, group_weights

LOG_ODDS, REFUSED, MOVED = "log_odds", "refused", "moved"
UNITS = {LOG_ODDS: "nats", REFUSED: "share of answers", MOVED: "share of its norm"}
ANY_IMAGE, THIS_CONTENT = (NONE, ZERO), (TWIN, REAL)
"""The step that is due to any image, and the one that is due to what this picture shows."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """What was measured on every rung.

    Attributes:
        rungs: from the bottom to the top.
        units: the concept of every pair; concepts are resampled whole.
        layers: of ``moved``.
        log_odds: (pair, rung) of refusing, in nats.
        refused: (pair, rung) 1 where the answer is judged a refusal, 0 where not, NaN where it can not be read.
        moved: (pair, rung, layer) distance of the state at t_post from that of the question alone, as a share of the
            norm of the latter; 0 or more.
        distinct: (rung) how many different prompts a rung has: one for the question alone.
    """

    rungs: tuple[str, ...]
    units: tuple[str, ...]
    layers: tuple[int, ...]
    log_odds: Float[ndarray, "pair rung"]
    refused: Float[ndarray, "pair rung"]
    moved: Float[ndarray, "pair rung layer"]
    distinct: tuple[int, ...]

    def arrays(self) -> dict[str, ndarray]:
        """Everything but the units, for a file."""
        numbers = {name: getattr(self, name) for name in ("log_odds", "refused", "moved")}
        return {**numbers, "layers": np.array(self.layers), "distinct": np.array(self.distinct)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, ndarray], units: Sequence[str]) -> "Ladder":
        """The ladder, with every rung, of which these are the `arrays`."""
        layers, distinct = (tuple(int(v) for v in arrays[name]) for name in ("layers", "distinct"))
        numbers = {name: arrays[name] for name in ("log_odds", "refused", "moved")}
        return cls(RUNGS, tuple(units), layers, distinct=distinct, **numbers)

    def weights(self, seed: int = 0) -> Weights:
        """How often every pair is drawn in each resample of the concepts."""
        return group_weights(self.units, seed=seed)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of some prompts: refusal log-odds in nats, the answer, and the state at t_post by layer."""

    log_odds: Float[ndarray, " prompt"]
    answers: list[str]
    states: Float[ndarray, "prompt layer d_model"]


def read(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    family: RefusalFamily,
    layers: Sequence[int],
    *,
    tokens: int,
    batch_size: int = 32,
) -> Reading:
    """Reads prompts once each, however often they occur.

    Args:
        adapter: any backend that takes the prompts.
        prompts: at least one; those that ask the same are read once.
        family: what counts as the opening of a refusal.
        layers: of the states, ascending.
        tokens: most tokens of an answer.
        batch_size: how many prompts run at once.
    """
    chosen, back = different(prompts)
    log_odds = refusal_log_odds(adapter, chosen, [family], batch_size=batch_size).numpy()
    said = answers(adapter, chosen, tokens=tokens, batch_size=batch_size)
    states = states_at(adapter, chosen, layers, (-1,), batch_size=batch_size)[:, :, 0].float().numpy()
    return Reading(log_odds[back], [said[i] for i in back], states[back])


def climb(
    reading: Callable[[Sequence[Prompt]], Reading],
    rungs: Mapping[str, Sequence[Prompt]],
    units: Sequence[str],
    layers: Sequence[int],
    *,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Ladder, dict[str, list[str]]]:
    """Reads the prompts of every rung.

    Args:
        reading: of some prompts, such as `read`.
        rungs: by name, from the bottom to the top, one prompt per pair; the question alone is among them.
        units: the concept of every pair.
        layers: of the states.
        progress: called with (rungs done, rungs in all).

    Returns:
        The ladder, and the answers by rung.

    Raises:
        UsageError: when a rung has another number of prompts, or the question alone is missing.
    """
    if NONE not in rungs or any(len(prompts) != len(units) for prompts in rungs.values()):
        raise UsageError(f"a ladder needs {NONE!r} and one prompt per pair on every rung; {len(units)} pairs.")
    found: dict[str, Reading] = {}
    for done, (rung, prompts) in enumerate(rungs.items(), start=1):
        found[rung] = reading(prompts)
        progress(done, len(rungs))
    alone = torch.from_numpy(found[NONE].states).double()
    moved = [(torch.from_numpy(r.states).double() - alone).norm(dim=-1) / alone.norm(dim=-1) for r in found.values()]
    said = {rung: one.answers for rung, one in found.items()}
    ladder = Ladder(
        tuple(rungs),
        tuple(units),
        tuple(layers),
        np.stack([r.log_odds for r in found.values()], 1),
        np.stack([judged(r.answers) for r in found.values()], 1),
        torch.stack(moved, 1).numpy(),
        tuple(len(different(prompts)[0]) for prompts in rungs.values()),
    )
    return ladder, said


def judged(said: Sequence[str]) -> Float[ndarray, " answer"]:
    """1 for a refusal of any family, 0 for an answer or an evasion, NaN for what can not be read."""
    value = {"refused": 1.0, "complied": 0.0, "evasion": 0.0}
    return np.array([value.get(behaviour(one), np.nan) for one in said])


def rung_table(ladder: Ladder, *, seed: int = 0) -> pd.DataFrame:
    """Log-odds (bootstrap over concepts) and judged refusal (Wilson) of every rung.

    Returns:
        rung, measure, value, lo, hi, n, distinct. Where ``distinct`` is 1 all pairs share one prompt: its log-odds
        have no spread, and the Wilson interval, which takes n answers for independent, is not to be believed.
    """
    weights, rows = ladder.weights(seed), []
    for k, rung in enumerate(ladder.rungs):
        for measure, found in (
            (LOG_ODDS, mean_of(ladder.log_odds[:, k], weights)),
            (REFUSED, rate_of(ladder.refused[:, k])),
        ):
            rows.append((*as_rows((rung, measure), found), ladder.distinct[k]))
    return pd.DataFrame(rows, columns=["rung", "measure", "value", "lo", "hi", "n", "distinct"])


def step_table(ladder: Ladder, *, seed: int = 0) -> pd.DataFrame:
    """What changes from one rung to another, within pairs: neighbours, and the whole way.

    Returns:
        lower, upper, measure, value (upper minus lower), lo, hi (bootstrap over concepts) and n.
    """
    weights, rows = ladder.weights(seed), []
    steps = [*pairwise(range(len(ladder.rungs))), (0, len(ladder.rungs) - 1)]
    for below, above in dict.fromkeys(steps):
        names = (ladder.rungs[below], ladder.rungs[above])
        for measure, values in ((LOG_ODDS, ladder.log_odds), (REFUSED, ladder.refused)):
            rows.append(as_rows((*names, measure), mean_of(values[:, above] - values[:, below], weights)))
    return pd.DataFrame(rows, columns=["lower", "upper", "measure", "value", "lo", "hi", "n"])


def moved_table(ladder: Ladder, *, seed: int = 0) -> pd.DataFrame:
    """How far the state at t_post is from that of the question alone, by rung and layer.

    Returns:
        rung, layer, value (share of the norm), lo, hi, n; without the question alone, which is 0 everywhere.
    """
    weights, rows = ladder.weights(seed), []
    for k, rung in enumerate(ladder.rungs):
        if rung == NONE:
            continue
        value, lo, hi = bootstrap_mean(ladder.moved[:, k], weights)
        rows += [(rung, layer, value[i], lo[i], hi[i], len(ladder.units)) for i, layer in enumerate(ladder.layers)]
    return pd.DataFrame(rows, columns=["rung", "layer", "value", "lo", "hi", "n"])
