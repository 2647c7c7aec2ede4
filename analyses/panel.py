"""Every locator that reads cached states, side by side: the same prompts, one position, one family's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.fdv import WORDS, fdv
from analyses.locators.firing import Firing
from analyses.locators.mean_difference import mean_difference
from analyses.locators.pair_angle import pair_angle
from analyses.locators.probe_onset import SHARE
from analyses.locators.separability import linear_margin, mmd, wasserstein
from analyses.locators.tga_paper import tga_paper
from analyses.locators.tga_released import tga_released
from analyses.readings import log_odds
from interp.axes import States
from interp.lens import LensReading, Readout, TunedLens, logit_lens, token_log_probs
from interp.models.lexicon import Lexicon, compile_lexicon, whole_words
from interp.prompts.families import RefusalFamily
from probes.splits import Folds
from probes.sweep import enough_of_both, sweep

TUNED = " (tuned lens)"
"""Behind the name of a reading through a tuned lens."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that locators watch, in one tokenizer.

    Attributes:
        lexicon: of a refusal family.
        topics: ids of the refusal vocabulary of `fdv`.
    """

    lexicon: Lexicon
    topics: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, family: RefusalFamily) -> "Vocabulary":
        """Looks the words up."""
        return cls(compile_lexicon(tokenizer, family), whole_words(tokenizer, WORDS).ids)


def reading_curves(
    states: States,
    layers: tuple[int, ...],
    contrast: Contrast,
    readout: Readout,
    words: Vocabulary,
    lens: LensReading | None = None,
) -> tuple[dict[str, Curve], tuple[Firing, ...]]:
    """The curves of all locators that read words through the logit lens, and where the rules among them fire.

    A rule whose words are no single tokens here can not fire; its curve is flat.

    Args:
        states: at t_post.
        layers: their layer numbers, without gaps.
        contrast: the two kinds.
        readout: of the model that made the states.
        words: what to look for.
        lens: what the logit lens reads in these states of ``words.lexicon.openings``; read here if left out.
    """
    lexicon = words.lexicon
    lens = lens or logit_lens(states, readout, tokens=torch.tensor(lexicon.openings))
    rules = (tga_paper(lens, layers, lexicon.paper), tga_released(lens, layers, lexicon.released))
    curves = {rule.locator: rule.curve(contrast) for rule in rules}
    curves["opening_logodds"] = opening_curve(lens.log_prob, layers, contrast)
    if words.topics:
        curves["fdv"] = fdv(states, layers, contrast, readout, words.topics)
    return curves, rules


def tuned_curve(
    states: States, layers: tuple[int, ...], contrast: Contrast, readout: Readout, words: Vocabulary, lens: TunedLens
) -> Curve:
    """The same first tokens as ``opening_logodds`` through a tuned lens."""
    tokens = torch.tensor(words.lexicon.openings)
    log_prob = token_log_probs(lens.translate(states, layers), readout, tokens=tokens)
    return opening_curve(log_prob, layers, contrast, tuned=True)


def opening_curve(
    log_prob: Float[Tensor, "prompt layer token"],
    layers: tuple[int, ...],
    contrast: Contrast,
    *,
    tuned: bool = False,
) -> Curve:
    """The log-odds of a family's first tokens, of one kind of prompts minus the other's."""
    name = f"opening_logodds{TUNED if tuned else ''}"
    return Curve.of_scores(name, layers, log_odds(log_prob), contrast, unit="nats")


def state_curves(states: States, layers: tuple[int, ...], contrast: Contrast) -> dict[str, Curve]:
    """The curves of all locators that see no word: how far apart the two kinds of states are."""
    found = (
        mean_difference(states, layers, contrast),
        pair_angle(states, layers, contrast),
        pair_angle(states, layers, contrast, about="middle"),
        mmd(states, layers, contrast),
        wasserstein(states, layers, contrast),
        linear_margin(states, layers, contrast),
    )
    return {curve.locator: curve for curve in found}


def probe_curve(
    states: States,
    layers: tuple[int, ...],
    refused: Bool[ndarray, " prompt"],
    folds: Folds,
    groups: Sequence[str],
    seed: int,
) -> Curve | None:
    """The AUROC curve of probes of what was refused; None with too few of either behaviour."""
    if not enough_of_both(refused):
        return None
    swept = sweep(states.permute(1, 0, 2).contiguous().float(), refused, folds)
    contrast = Contrast.of_rows(refused, tuple(groups), names=("refused", "complied"), seed=seed)
    return Curve.of_auroc("probe", layers, np.asarray(swept.scores).T, contrast, folds=folds.of, share=SHARE)
