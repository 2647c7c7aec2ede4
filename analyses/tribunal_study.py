"""The tribunal as a study: every locator on the same prompts, the patches, the trial, and the claim they allow."""

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from analyses.decision import decision_claim
from analyses.hearing import Hearing
from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from analyses.locators.firing import Firing
from analyses.locators.probe_onset import probe_onset
from analyses.panel import Vocabulary, reading_curves, state_curves
from analyses.sample import Sample
from analyses.tribunal import Witness, agreement_table, consensus, flags, sentences, verdict_table
from interp import figures
from interp.cache import ActivationCache
from interp.figures.heatmaps import HOW_TO_READ, ONSETS, OWN_PEAK
from interp.lens import Readout
from interp.prompts import PromptSet
from interp.stats import Estimate, group_weights
from interp.study import Claim, Study
from probes.train import TrainedProbe

POSITION = "t_post"
DRAWN_FROM = {"locator_heatmap": ("locator_layers", "verdicts"), "causal_heatmap": ("causal_layers",)}


def run(
    cache: ActivationCache,
    readout: Readout,
    words: Vocabulary,
    prompts: PromptSet,
    hearing: Hearing,
    probe: TrainedProbe | None,
    *,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> Study:
    """Holds the tribunal over labelled prompts.

    Args:
        cache: states at t_post, of all layers.
        readout: of the model that made the cache.
        words: what word-watching locators look for.
        prompts: those of the cache, harmful and harmless ones.
        hearing: what was seen of the model.
        probe: of its refusals; None where it did only one thing.
        seed: of bootstrap and permutations.
        provenance: what claims should carry.

    Returns:
        Tables ``verdicts``, ``agreement``, ``locator_layers``, ``causal_layers``, ``trial`` and ``candidates``, their
        figures, and one claim per place patched.
    """
    sample = Sample.of(prompts, seed=seed)
    family = words.lexicon.family
    decided, causal = _decided(hearing, seed)
    found = _witnesses(cache, readout, words, sample, probe, causal, decided)
    agreed = consensus(found)
    claims = _claims(hearing, sample.only(sample.labelled), sample.labelled, cache.layers[-1], seed, provenance or {})
    layers = pd.concat([t.curve.table(family=t.family, position=t.position) for t in found], ignore_index=True)
    tables = {"verdicts": verdict_table(found), "agreement": agreement_table(found), "locator_layers": layers}
    tables |= {n: t for n, t in (("trial", hearing.trial), ("candidates", hearing.candidates)) if t is not None}
    if hearing.effects:
        tables["causal_layers"] = causal_table(hearing, seed)
    return Study(
        title=f"Which layers decide to refuse: {cache.identity['model.name']} on {prompts.name}",
        headlines=(*_verdicts(claims, hearing), *sentences(found, agreed, decided), *_trial_sentences(hearing)),
        notes=_notes(family, hearing),
        tables=tables,
        figures=_figures(tables, found),
        claims=claims,
        about={},
        drawn_from=DRAWN_FROM,
    )


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
    cache: ActivationCache,
    readout: Readout,
    words: Vocabulary,
    sample: Sample,
    probe: TrainedProbe | None,
    causal: list[Curve],
    decided: dict[str, Estimate],
) -> list[Witness]:
    states, top = cache.residuals(position=POSITION), cache.layers[-1]
    alone = replace(sample, weights=group_weights([str(i) for i in range(len(sample))], seed=sample.seed))
    where, family = decided.get(POSITION), words.lexicon.family
    by_group, by_prompt = Contrast.of(sample), Contrast.of(alone)
    reading, rules, _ = reading_curves(states, cache.layers, by_group, readout, words)
    again, _, _ = reading_curves(states, cache.layers, by_prompt, readout, words)
    firings = {rule.locator: rule for rule in rules}
    found = [
        _witness(curve, again[name], family, top, where, firings.get(name), sample) for name, curve in reading.items()
    ]
    again = state_curves(states, cache.layers, by_prompt)
    for name, curve in state_curves(states, cache.layers, by_group).items():
        found.append(_witness(curve, again[name], "none", top, where, None, sample))
    if probe is not None:
        curve = probe_onset(probe, cache.layers, seed=sample.seed)
        found.append(_witness(curve, None, "none", top, where, None, sample))
    return found + [_witness(curve, None, "own", top, where, None, sample) for curve in causal]


def _witness(
    curve: Curve,
    alone: Curve | None,
    family: str,
    top: int,
    decided: Estimate | None,
    firing: Firing | None,
    sample: Sample,
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


def _verdicts(claims: tuple[Claim, ...], hearing: Hearing) -> list[str]:
    if not claims:
        why = hearing.chosen if not hearing.words else "patching needs twins of one harmful and one harmless prompt"
        return [f"Not established: a layer that decides to refuse; nothing was patched ({why})."]
    lines = [claim.statement for claim in claims if claim.established]
    for claim in claims:
        if not claim.established:
            failed = ", ".join(c.name for c in claim.controls if not c.passed)
            lines.append(f"Not established: a layer that decides to refuse, at {claim.position}: failed {failed}.")
    return lines


def _trial_sentences(hearing: Hearing) -> list[str]:
    if hearing.trial is None:
        return [f"No direction was tried: {hearing.chosen}."] if hearing.words else []
    lines = [f"The direction was {hearing.chosen}."]
    for name, kind, what in (("taken out", "harmful", "Necessity"), ("put in", "harmless", "Sufficiency")):
        if name not in set(hearing.trial["intervention"]):
            continue
        before, after = (_cell(hearing.trial, n, "", kind, "refused") for n in ("none", name))
        placebos = {p: _cell(hearing.trial, name, p, kind, "refused") for p in _placebos(hearing.trial, name)}
        told = ", ".join(f"{placebo} {_share(row)}" for placebo, row in placebos.items())
        lines.append(
            f"{what}: {kind} prompts refused {_share(before)}; with the direction {name} {_share(after)}; placebos: "
            f"{told}.{_side_effects(hearing.trial, name)}"
        )
    return lines


def _side_effects(trial: pd.DataFrame, name: str) -> str:
    """What taking the direction out changes where nothing was refused; putting it in is meant to change the answer."""
    if name != "taken out":
        return ""
    kl = _cell(trial, name, "", "harmless", "kl_answered")
    return f" KL on harmless prompts it answers {kl['value']:.3f} [{kl['lo']:.3f}, {kl['hi']:.3f}] nats per token."


def _cell(trial: pd.DataFrame, name: str, placebo: str, kind: str, metric: str) -> dict[str, float]:
    """The one row of a trial."""
    wanted = {"intervention": name, "placebo": placebo, "prompts": kind, "metric": metric}
    row = trial[(trial[list(wanted)] == pd.Series(wanted)).all(axis=1)].iloc[0]
    return {k: float(row[k]) for k in ("value", "lo", "hi")}


def _placebos(trial: pd.DataFrame, name: str) -> list[str]:
    own = trial.loc[(trial["intervention"] == name) & (trial["placebo"] != ""), "placebo"]
    return list(dict.fromkeys(own))


def _share(row: dict[str, float]) -> str:
    return f"{row['value']:.0%} [{row['lo']:.0%}, {row['hi']:.0%}]"


def _notes(family: str, hearing: Hearing) -> tuple[str, ...]:
    opened = ", ".join(map(repr, hearing.words)) or "none"
    return (
        "Every locator sees the same cached states at t_post, harmful against harmless prompts (the probe: refused "
        f"against complied). Those that watch words look for the {family} family; all others see none.",
        "Patching reads log-odds, in nats, that the answer opens as the model's own refusals do (first tokens "
        f"{opened}). Sufficiency: harmless prompts get the states of their harmful twin. Necessity: harmful ones get "
        "those of their harmless twin. Placebo: the states of a stranger of the same kind.",
        "An onset is the first layer at which a curve has come half of the way to its peak (nine tenths for the AUROC "
        "of the probe). Flags: never fires; fires on harmless alike (more than half as often); unstable (interval "
        "wider than a fifth of the depth); not causal (more than 3 layers from where patching begins to turn the model "
        "round).",
        "The direction is a difference of means, fitted on 40 % of the twins, chosen on 20 %, tried on the rest. "
        "Answers are judged by how they begin.",
    )


def _figures(tables: dict[str, pd.DataFrame], found: list[Witness]) -> dict[str, tuple[Any, str]]:
    layers = tables["locator_layers"]
    named = {t.curve.locator: t.curve for t in found}
    chosen = pd.concat(
        [layers[(layers["locator"] == n) & (layers["group"] == c.contrast)] for n, c in named.items()],
        ignore_index=True,
    )
    verdicts = tables["verdicts"]
    onsets = pd.DataFrame({"locator": verdicts["locator"]} | {
        new: verdicts[old] for new, old in (("onset", "onset"), ("lo", "onset_lo"), ("hi", "onset_hi"))
    })  # fmt: skip
    drawn = {
        "locator_heatmap": (
            figures.layer_heatmap(
                chosen,
                rows="locator",
                unit={n: c.unit for n, c in named.items()},
                null={n: c.null for n, c in named.items()},
                onsets=onsets,
            ),
            f"How far every locator sets the two kinds of prompts apart, by layer. {HOW_TO_READ} {OWN_PEAK} {ONSETS}",
        )
    }
    if "causal_layers" in tables:
        table = tables["causal_layers"]
        table = table.assign(what=table["position"] + ": " + table["locator"].str.removeprefix("causal_patch "))
        drawn["causal_heatmap"] = (
            figures.layer_heatmap(table, rows="what", unit="nats"),
            "How much patching moves the log-odds of the model's own refusals, by layer: with the states of the other "
            f"prompt of a twin, and with those of a stranger of the same kind (placebo). {HOW_TO_READ}",
        )
    return drawn
