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

WATCH_WORDS = ("tga_paper", "tga_released", "opening_logodds", "opening_logodds, tuned lens", "fdv")
"""The locators that watch for words; all others see none."""


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
    states: States, layers: tuple[int, ...], contrast: Contrast, readout: Readout, words: Vocabulary
) -> tuple[dict[str, Curve], tuple[Firing, ...], LensReading]:
    """The curves of all locators that read words through the logit lens, with the reading they come from.

    A rule whose words are no single tokens here can not fire; its curve is flat.
    """
    lexicon = words.lexicon
    lens = logit_lens(states, readout, tokens=torch.tensor(lexicon.openings))
    rules = (tga_paper(lens, layers, lexicon.paper), tga_released(lens, layers, lexicon.released))
    curves = {rule.locator: rule.curve(contrast) for rule in rules}
    curves["opening_logodds"] = _opening_curve("opening_logodds", lens.log_prob, layers, contrast)
    if words.topics:
        curves["fdv"] = fdv(states, layers, contrast, readout, words.topics)
    return curves, rules, lens


def tuned_curve(
    states: States, layers: tuple[int, ...], contrast: Contrast, readout: Readout, words: Vocabulary, lens: TunedLens
) -> Curve:
    """The same first tokens as ``opening_logodds`` through a tuned lens."""
    tokens = torch.tensor(words.lexicon.openings)
    log_prob = token_log_probs(lens.translate(states, layers), readout, tokens=tokens)
    return _opening_curve("opening_logodds, tuned lens", log_prob, layers, contrast)


def _opening_curve(
    name: str, log_prob: Float[Tensor, "prompt layer token"], layers: tuple[int, ...], contrast: Contrast
) -> Curve:
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
