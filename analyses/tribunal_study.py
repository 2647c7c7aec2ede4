"""The tribunal as a study: every locator on the same prompts, the patches, the trial, and the claim they allow."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from numpy import ndarray

from analyses.accord import accord_sentences, accord_table, voices
from analyses.decision import decision_claim
from analyses.hearing import Hearing
from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.firing import Firing
from analyses.locators.probe_onset import probe_onset
from analyses.panel import Vocabulary, opening_curve, reading_curves, state_curves
from analyses.position_profiles import position_table
from analyses.sample import Sample
from analyses.second_readout import calibration_table, kept_second_reading
from analyses.tribunal import Witness, agreement_table, consensus, flags, sentences, verdict_table
from analyses.tribunal_figures import DRAWN_FROM, all_figures
from analyses.tribunal_words import notes, trial_sentences, verdict_sentences
from interp.axes import States
from interp.cache import ActivationCache
from interp.lens import LensReading, Readout, TunedLens, logit_lens
from interp.prompts import PromptSet
from interp.stats import Estimate, group_weights
from interp.study import Claim, Study
from probes.train import TrainedProbe

POSITION = "t_post"


def run(
    cache: ActivationCache,
    readout: Readout,
    words: Vocabulary,
    prompts: PromptSet,
    hearing: Hearing,
    probe: TrainedProbe | None,
    *,
    lens: TunedLens | None = None,
    read: LensReading | None = None,
    position_tokens: dict[str, str] | None = None,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> Study:
    """Holds the tribunal over labelled prompts.

    Args:
        cache: states at t_post, of all layers, and at any other positions.
        readout: of the model that made the cache.
        words: what word-watching locators look for.
        prompts: those of the cache, harmful and harmless ones.
        hearing: what was seen of the model.
        probe: of its refusals; None where it did only one thing.
        lens: a tuned lens as the second readout; None for none.
        read: what the logit lens reads at t_post of ``words.lexicon.openings``; read here if left out.
        position_tokens: the token at each position, for the heatmaps' axes.
        seed: of bootstrap and permutations.
        provenance: what claims should carry.

    Returns:
        Tables ``verdicts``, ``agreement``, ``accord``, ``locator_layers``, ``position_layers``, and where they could be
        measured ``causal_layers``, ``trial``, ``candidates``, ``family_layers``, ``family_onsets`` and
        ``tuned_calibration``; their figures, and one claim per place patched.
    """
    sample = Sample.of(prompts, seed=seed)
    bench = _Read(cache, readout, words, sample, lens, read)
    decided, causal = _decided(hearing, seed)
    found = _witnesses(bench, hearing, probe, causal, decided.get(POSITION))
    agreed = consensus(found)
    heard = voices(found, agreed, causal, POSITION in decided)
    claims = _claims(hearing, sample.only(sample.labelled), sample.labelled, cache.layers[-1], seed, provenance or {})
    tables = {
        "verdicts": verdict_table(found),
        "agreement": agreement_table(found),
        "accord": accord_table(heard),
        "locator_layers": pd.concat([t.curve.table(family=t.family, position=t.position) for t in found]),
        "position_layers": position_table(cache, sample, hearing.refused, hearing.counted),
        **_measured(bench, hearing, seed),
    }
    lines = (*sentences(found, agreed, decided), *accord_sentences(heard, hearing.effects, seed=seed))
    return Study(
        title=f"Which layers decide to refuse: {cache.identity['model.name']} on {prompts.name}",
        headlines=(*verdict_sentences(claims, hearing), *lines, *trial_sentences(hearing)),
        notes=notes(words.lexicon.family, hearing),
        tables={name: table.reset_index(drop=True) for name, table in tables.items()},
        figures=all_figures(tables, found, {p: (position_tokens or {}).get(p, "") for p in cache.positions}),
        claims=claims,
        about={},
        drawn_from=DRAWN_FROM,
    )


@dataclass(frozen=True)
class _Read:
    """What the locators are given.

    Attributes:
        lens: the second readout, if there is one.
        read: what the logit lens reads at t_post.
    """

    cache: ActivationCache
    readout: Readout
    words: Vocabulary
    sample: Sample
    lens: TunedLens | None
    read: LensReading | None

    @cached_property
    def states(self) -> States:
        """At t_post."""
        return self.cache.residuals(position=POSITION)

    @cached_property
    def first(self) -> LensReading:
        """What the logit lens reads there."""
        return self.read or logit_lens(self.states, self.readout, tokens=torch.tensor(self.words.lexicon.openings))

    @cached_property
    def second(self) -> LensReading | None:
        """What the tuned lens reads there."""
        if self.lens is None:
            return None
        return kept_second_reading(self.cache, self.readout, self.lens, self.words.lexicon.openings)

    def curves(self, sample: Sample) -> tuple[dict[str, Curve], tuple[Firing, ...]]:
        """Of all locators that read words, and where the rules among them fire."""
        contrast, layers = Contrast.of(sample), self.cache.layers
        found, rules = reading_curves(self.states, layers, contrast, self.readout, self.words, self.first)
        if self.second is not None:
            tuned = opening_curve(self.second.log_prob, layers, contrast, tuned=True)
            found[tuned.locator] = tuned
        return found, rules


def _measured(bench: _Read, hearing: Hearing, seed: int) -> dict[str, pd.DataFrame]:
    """The tables of what could be measured on this model."""
    tables = {n: t for n, t in (("trial", hearing.trial), ("candidates", hearing.candidates)) if t is not None}
    if hearing.effects:
        tables["causal_layers"] = causal_table(hearing, seed)
    if hearing.families is not None:
        tables["family_layers"] = hearing.families.table(bench.sample)
        tables["family_onsets"] = hearing.families.onsets(bench.sample)
    if bench.second is not None:
        family = bench.words.lexicon.family
        tables["tuned_calibration"] = calibration_table(bench.second, bench.cache.layers, bench.sample, family)
    return tables


def _claims(
    hearing: Hearing,
    sample: Sample,
    labelled: Bool[ndarray, " prompt"],
    top_layer: int,
    seed: int,
    provenance: dict[str, Any],
) -> tuple[Claim, ...]:
    """One claim per place that was patched."""
    claim = partial(decision_claim, family=hearing.family, top_layer=top_layer, seed=seed, provenance=provenance)
    refused = hearing.refused[labelled]
    return tuple(claim(effects, sample, refused, position=place) for place, effects in hearing.effects.items())


def _decided(hearing: Hearing, seed: int) -> tuple[dict[str, Estimate], list[Curve]]:
    """Where patching begins to turn the model round, by place, and the curves at t_post."""
    decided, curves = {}, []
    for place, effects in hearing.effects.items():
        own = effects.sufficiency(seed=seed), effects.necessity(seed=seed)
        curves += list(own) if place == POSITION else []
        if all(curve.height.lo > 0 for curve in own):
            decided[place] = own[0].onset()
    return decided, curves


def _witnesses(
    bench: _Read, hearing: Hearing, probe: TrainedProbe | None, causal: list[Curve], decided: Estimate | None
) -> list[Witness]:
    sample, family = bench.sample, bench.words.lexicon.family
    alone = replace(sample, weights=group_weights([str(i) for i in range(len(sample))], seed=sample.seed))
    witness = partial(_witness, top=bench.cache.layers[-1], decided=decided, sample=sample)
    reading, rules = bench.curves(sample)
    again, _ = bench.curves(alone)
    firings = {rule.locator: rule for rule in rules}
    found = [witness(curve, again[name], family, firing=firings.get(name)) for name, curve in reading.items()]
    if hearing.families is not None and hearing.family in hearing.families.read.families:
        found.append(witness(hearing.families.curve(hearing.family, sample), None, hearing.family))
    again = state_curves(bench.states, bench.cache.layers, Contrast.of(alone))
    states = state_curves(bench.states, bench.cache.layers, Contrast.of(sample))
    found += [witness(curve, again[name], "none") for name, curve in states.items()]
    if probe is not None:
        found.append(witness(probe_onset(probe, bench.cache.layers, seed=sample.seed), None, "none"))
    return found + [witness(curve, None, "own") for curve in causal]


def _witness(
    curve: Curve,
    alone: Curve | None,
    family: str,
    *,
    top: int,
    decided: Estimate | None,
    sample: Sample,
    firing: Firing | None = None,
) -> Witness:
    wrong = flags(curve, top, decided, firing, sample.harmful)
    return Witness(curve, alone, family, POSITION, tuple(wrong))


def causal_table(hearing: Hearing, seed: int = 0) -> pd.DataFrame:
    """Effects of patching by layer, place and direction, beside their placebos, in the columns of a layer table."""
    parts = []
    for place, effects in hearing.effects.items():
        for curve_of, placebo in product((effects.sufficiency, effects.necessity), (False, True)):
            parts.append(curve_of(placebo=placebo, seed=seed).table(family=hearing.family, position=place))
    return pd.concat(parts, ignore_index=True)
