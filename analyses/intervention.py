"""Is the direction of refusal needed, and does it suffice? Fitted on some twins, chosen on others, tried on the rest.

The direction of a layer is the difference of means at t_post (Arditi et al. 2024). Taken out of the stream it should
take the refusals of harmful prompts with it, and little else; put in it should make harmless prompts refused. Taken out
means either of two edits: set to 0 at all layers and tokens, as published, or set to what it is on harmless prompts at
its own layer alone (affine; Marshall et al. 2024, arXiv 2411.09003). The published filters choose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.locators.mean_difference import Selection, select
from analyses.own_words import word_log_odds
from interp.causal import (
    Ablation,
    Addition,
    Ascent,
    Intervention,
    answers,
    placebo,
    side_effects,
    states_at,
    trial,
)
from interp.errors import UsageError
from interp.judges import behaviour
from interp.lens import Readout
from interp.models.adapter import Adapter
from interp.models.teacher_forcing import answer_log_probs, remembering
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt, PromptSet
from interp.stats import group_codes

PUBLISHED, AFFINE = "ablation", "affine ablation"
SHARES = (0.4, 0.2)
"""Of the groups: fitted on, chosen on; the rest is for the trial."""
SHALLOWEST = 0.3
"""Directions below this share of the depth are not tried."""
MOST_LAYERS = 12
"""Of deeper models every second layer is tried, or every third."""
DEPTH = 0.8
"""The published filter: directions above are the words themselves rather than a reason to say them."""
SCALES = (1.0, 1.5)
TOKENS = 16
TRIED = 40
"""Most groups that are tried."""
FEWEST = 10
"""Twins below which nothing is split."""


@dataclass(frozen=True, slots=True)
class Direction:
    """What was found before the trial.

    Attributes:
        candidates: one row per layer and way of taking out; layers above `DEPTH` only where none below passes.
        selection: which of them, and why not the others.
        deep: whether nothing passed below `DEPTH`, so that this filter was left out.
        taken_out: the edit that is tried for need; None when no candidate passes the other filters.
        put_in: the edit that is tried for sufficiency.
    """

    candidates: pd.DataFrame
    selection: Selection
    deep: bool
    taken_out: Ablation | None
    put_in: Addition


@dataclass(frozen=True, slots=True)
class Parts:
    """Three parts of the prompts that share no group, of at most `TRIED` groups each."""

    fitted: PromptSet
    chosen: PromptSet
    tried: PromptSet


def parts(prompts: PromptSet, *, seed: int = 0) -> Parts:
    """Splits prompts by group.

    Raises:
        UsageError: for fewer than `FEWEST` groups.
    """
    codes = group_codes([p.unit for p in prompts])
    n = int(codes.max()) + 1
    if n < FEWEST:
        raise UsageError(f"{n} groups of prompts can not be split in three; give {FEWEST} or more.")
    place = np.random.default_rng(seed).permutation(n)[codes]
    bounds = (0, round(SHARES[0] * n), round(sum(SHARES) * n), n)
    found = []
    for k, (lo, hi) in enumerate(pairwise(bounds)):
        own = tuple(p for p, at in zip(prompts, place, strict=True) if lo <= at < min(hi, lo + TRIED))
        found.append(PromptSet(f"{prompts.name}, part {k + 1}", own))
    return Parts(*found)


def find_direction(
    adapter: Adapter, readout: Readout, own: Parts, words: Sequence[int], progress: Callable[[int, int], None]
) -> Direction:
    """Fits the directions, measures every candidate, and chooses.

    Args:
        adapter: the model.
        readout: its own.
        own: the parts of the prompts; the third is not looked at.
        words: first tokens of the model's own refusals.
        progress: called with (layers done, layers in all).
    """
    layers = range(int(SHALLOWEST * adapter.n_layers), adapter.n_layers, max(1, adapter.n_layers // MOST_LAYERS))
    ways, means = _means(adapter, own.fitted, layers)
    harmful, harmless = (own.chosen.where(label=label).prompts for label in ("harmful", "harmless"))
    said = answers(adapter, harmless, tokens=TOKENS)
    # Where the model refuses, taking refusal out is to change the answer: side effects are those on other prompts.
    helped = [i for i, answer in enumerate(said) if behaviour(answer) != "refused"]
    asked, said = [harmless[i] for i in helped], [said[i] for i in helped]
    effects = _Effects(adapter, readout, harmful, harmless, words, (asked, said))
    top = int(DEPTH * adapter.n_layers)
    rows: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        if layer >= top and select(pd.DataFrame(rows), depth=DEPTH, blocks=adapter.n_layers).chosen is not None:
            break  # one below the depth filter passes, so that none above can be chosen
        rows += effects.rows(layer, ways[i], means[i])
        progress(i + 1, len(layers))
    candidates = pd.DataFrame(rows)
    selection = select(candidates, depth=DEPTH, blocks=adapter.n_layers)
    deep = selection.chosen is None
    if deep:
        selection = select(candidates, depth=1.0, blocks=adapter.n_layers)
    chosen = selection.chosen
    taken = None
    if chosen is not None:
        at = layers.index(chosen["layer"])
        taken = _taken_out(chosen["edit"], chosen["layer"], ways[at], means[at])
    return Direction(candidates, selection, deep, taken, _put_in(adapter, harmless, layers, ways))


def _means(
    adapter: Adapter, prompts: PromptSet, layers: range
) -> tuple[Float[Tensor, "layer d_model"], Float[Tensor, "layer d_model"]]:
    """The difference of means of every layer, and the mean of harmless prompts, float32."""
    states = states_at(adapter, prompts.prompts, layers, (-1,))[:, :, 0].double()
    harmful = torch.tensor([p.label == "harmful" for p in prompts])
    first, other = states[harmful].mean(0), states[~harmful].mean(0)
    return (first - other).float(), other.float()


def _taken_out(kind: str, layer: int, way: Float[Tensor, " d_model"], mean: Float[Tensor, " d_model"]) -> Ablation:
    if kind == PUBLISHED:
        return Ablation(way)
    return Ablation(way, (layer,), toward=float(mean @ way / way.norm()))


class _Effects:
    """What the direction of a layer does on the prompts that it is chosen on.

    Attributes:
        asked: harmless prompts that the model helps with, and what it answers to them.
    """

    def __init__(
        self,
        adapter: Adapter,
        readout: Readout,
        harmful: Sequence[Prompt],
        harmless: Sequence[Prompt],
        words: Sequence[int],
        asked: tuple[Sequence[Prompt], Sequence[str]],
    ) -> None:
        self.adapter, self.asked = adapter, asked
        self.harmful, self.harmless = harmful, harmless
        self._words = partial(word_log_odds, adapter, readout, words=words)
        self._unedited = remembering(partial(answer_log_probs, adapter.model))
        self._ascent = Ascent.of(adapter, harmless)

    def rows(self, layer: int, way: Float[Tensor, " d_model"], mean: Float[Tensor, " d_model"]) -> list[dict[str, Any]]:
        """A row of the table of candidates for each way of taking it out; layers come in ascending order."""
        published, affine = (_taken_out(kind, layer, way, mean) for kind in (PUBLISHED, AFFINE))
        with self._ascent.below(layer):
            steering = float(self._words(self.harmless, edits=(Addition(way, layer),)).mean())
            local = self._row(AFFINE, layer, affine, steering)
        return [self._row(PUBLISHED, layer, published, steering), local]

    def _row(self, kind: str, layer: int, edit: Ablation, steering: float) -> dict[str, Any]:
        left = float(self._words(self.harmful, edits=(edit,)).mean())
        beside = side_effects(self.adapter, *self.asked, (edit,), tokens=TOKENS, unedited=self._unedited)
        kl = float(np.nanmean(beside.kl.numpy()))
        return {
            "layer": layer, "position": "t_post", "edit": kind, "ablated_refusal": left, "kl": kl, "steering": steering,
        }  # fmt: skip


def _put_in(
    adapter: Adapter, harmless: Sequence[Prompt], layers: range, ways: Float[Tensor, "layer d_model"]
) -> Addition:
    """The addition after which most harmless prompts are refused, the smallest of equals."""
    best, most = Addition(ways[0], layers[0]), -1.0
    half = len(layers) // 2
    for at, scale, i in product((None, (-1,)), SCALES, range(half, len(layers), 2)):
        edit = Addition(scale * ways[i], layers[i], at)
        share = float(np.mean([behaviour(a) == "refused" for a in answers(adapter, harmless, (edit,), tokens=TOKENS)]))
        if share > most:
            best, most = edit, share
        if most == 1:
            break
    return best


def try_direction(
    adapter: Adapter,
    found: Direction,
    prompts: PromptSet,
    families: Sequence[RefusalFamily],
    *,
    seed: int = 0,
    floor: float = 1e-4,
) -> pd.DataFrame:
    """The trial of what was found, beside placebos of equal size; columns of `interp.causal.trial`.

    Args:
        adapter: the model.
        found: of other prompts.
        prompts: the part that is tried.
        families: in whose words the model refuses.
        seed: of placebos and bootstrap.
        floor: as of `interp.causal.refusal_log_odds`.
    """
    interventions = []
    states = states_at(adapter, prompts.prompts, [found.put_in.layer], (-1,))[:, 0, 0].float()
    for name, edit in (("taken out", found.taken_out), ("put in", found.put_in)):
        if edit is None:
            continue
        interventions.append(Intervention(name, (edit,)))
        interventions.append(Intervention(name, (placebo(edit, seed),), "random direction"))
        if isinstance(edit, Ablation):
            interventions.append(Intervention(name, (placebo(edit, seed, states=states),), "same norm removed"))
    return trial(adapter, prompts, interventions, families, tokens=TOKENS, floor=floor, seed=seed)
