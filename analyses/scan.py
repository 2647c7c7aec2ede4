"""The scan: where along the layers a first-token lens reads refusal, on harmful and on harmless prompts alike.

Two published rules and one plain reading, all from one cache and one lens. What they share is their weakness: they
watch the first token of the answer for words of one refusal family.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyses.locators.firing import Firing
from analyses.readings import Progress, Readings, read_cache
from analyses.sample import DIFFERENCE, Sample
from analyses.scan_claims import curve_claim, rule_claim
from analyses.scan_tables import OPENING, layers_table, onset_table, prompt_table
from interp import figures
from interp.cache import ActivationCache
from interp.errors import UsageError
from interp.lens import Readout
from interp.models.lexicon import Lexicon
from interp.prompts import PromptSet
from interp.provenance import code_digest
from interp.stats import bootstrap_censored_median, wilson
from interp.study import Claim, Study

RULES = ("tga_paper", "tga_released")
NATS = "log-odds of a refusal opening (nats)"
DRAWN_FROM = {
    "position_heatmap": ("layers",),
    "prompt_heatmap": ("prompts",),
    "rules": ("layers", "onsets"),
    "calibration": ("layers",),
}
ONE_KIND = "Prompts of one kind only: nothing can be said about specificity. Add the other kind, with labels."


def run(
    cache: ActivationCache,
    readout: Readout,
    lexicon: Lexicon,
    prompts: PromptSet,
    *,
    read: Readings | None = None,
    position_tokens: dict[str, str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    provenance: dict[str, Any] | None = None,
) -> Study:
    """Scans every layer and position of a cache.

    Args:
        cache: states at t_post and any other positions, of consecutive layers.
        readout: the readout of the model that made the cache.
        lexicon: what refusal words are in its tokenizer.
        prompts: the prompts of the cache, in its order; their labels and groups are used.
        read: what `read_cache` gave; read here if left out.
        position_tokens: the token at each position, for the heatmap's axis.
        seed: of bootstrap and permutations.
        progress: called with (positions done, positions in all).
        provenance: what claims should carry beside model, run key, prompts, seed and code digest.

    Returns:
        Tables ``layers``, ``prompts`` and ``onsets``, two heatmaps, two sets of curves, the claims.

    Raises:
        UsageError: when the prompts are not those of the cache, or t_post or a layer is missing.
    """
    _require_same_prompts(cache, prompts)
    read = read or read_cache(cache, readout, lexicon, progress=progress)
    sample = Sample.of(prompts, seed=seed)
    layers, by_prompt = layers_table(read, sample, lexicon.family), prompt_table(read, prompts, sample)
    about = {"model": cache.identity["model.name"], "run": cache.key, "seed": seed, "prompts": prompts.digest}
    about |= {"code": code_digest(), **(provenance or {})}
    claims = _claims(read, sample, lexicon.family, about)
    tokens = position_tokens or {}
    return Study(
        title=f"Where a first-token lens reads refusal: {cache.identity['model.name']} on {prompts.name}",
        headlines=_headlines(read, sample, lexicon, claims),
        notes=_notes(lexicon),
        tables={"layers": layers, "prompts": by_prompt, "onsets": onset_table(read, prompts, sample)},
        figures=_figures(layers, by_prompt, {p: tokens.get(p, "") for p in read.openings}, sample),
        claims=claims,
        about=_about(cache, prompts, lexicon, about),
        drawn_from=DRAWN_FROM,
    )


def _require_same_prompts(cache: ActivationCache, prompts: PromptSet) -> None:
    if "t_post" not in cache.positions:
        raise UsageError(f"{cache.place}: the scan reads t_post, the cache has {', '.join(cache.positions)}.")
    if cache.prompts["id"].tolist() != [p.id for p in prompts]:
        raise UsageError(f"{cache.place}: was made of other prompts than {prompts.name}; give those of the cache.")


def _claims(read: Readings, sample: Sample, family: str, about: dict[str, Any]) -> tuple[Claim, ...]:
    if not sample.contrasted:
        return ()
    kept, labelled = sample.labelled, sample.only(sample.labelled)
    rules = [
        rule_claim(replace(rule, fires=rule.fires[kept]), labelled, family=family, provenance=about)
        for rule in read.rules
    ]
    opening = read.openings["t_post"][kept]
    return (*rules, curve_claim(OPENING, read.layers, opening, labelled, family=family, provenance=about))


def _headlines(read: Readings, sample: Sample, lexicon: Lexicon, claims: tuple[Claim, ...]) -> tuple[str, ...]:
    lines = [] if sample.contrasted else [ONE_KIND]
    for rule, ids in zip(read.rules, (lexicon.paper, lexicon.released), strict=True):
        lines.append(_rule_sentence(rule, sample) if ids else _blind_sentence(rule.locator))
    lines += [c.statement for c in claims if c.established]
    failed = [
        f"{c.locator} (fails {', '.join(k.name for k in c.controls if not k.passed)})"
        for c in claims
        if not c.established
    ]
    if failed:
        lines.append(f"Not established: a layer of refusal by {'; by '.join(failed)}. See Claims.")
    return tuple(lines)


def _rule_sentence(rule: Firing, sample: Sample) -> str:
    parts = []
    for kind in sample.kinds:
        chosen = sample.labels == kind
        onset = rule.onset[chosen]
        share = wilson(int(np.isfinite(onset).sum()), len(onset))
        median = bootstrap_censored_median(onset, sample.weights[:, chosen])
        first = f", median first layer {_layer(median.value)} [{_layer(median.lo)}, {_layer(median.hi)}]"
        parts.append(
            f"{int(np.isfinite(onset).sum())} of {share.n} {kind} prompts "
            f"({share.value:.0%} [{share.lo:.0%}, {share.hi:.0%}]){first if np.isfinite(median.value) else ''}"
        )
    return f"{rule.locator} fires on " + "; on ".join(parts) + "."


def _layer(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"


def _blind_sentence(locator: str) -> str:
    return f"{locator} can not fire here: this tokenizer has no single token for the words it watches."


def _notes(lexicon: Lexicon) -> tuple[str, ...]:
    watched = ", ".join(repr(lexicon.names[i]) for i in lexicon.openings)
    return (
        "Layer 0 is the embedding, layer i the residual stream after block i. t_inst is the last token of the "
        "instruction, post_k the template tokens after it, t_post the last token before the answer.",
        f"The heatmaps show how probable the lens makes it that the next token opens a refusal of the "
        f"{lexicon.family} family (first tokens {watched}), as log-odds. A first token is weak evidence: 'I' opens "
        "other answers too, and a refusal in other words is invisible here.",
        "A logit lens misreads early layers: where the divergence from the final layer is large, or the entropy far "
        "from the final layer's, the readings above say little.",
        "tga_paper: first layer whose largest log(P_j / P_{j-1}) belongs to a 'sorry' token. tga_released: first layer "
        "at which 'sorry' or 'I' is among the five largest P_j - P_{j-1}. Both as published, on both kinds of prompts. "
        "A median counts prompts on which a rule never fires as later than every layer.",
        "Intervals are 95 %: bootstrap over groups (twins stay together) for means and medians, Wilson for shares. "
        "Nothing here is causal: a readable layer need not be one that the model uses.",
    )


def _about(cache: ActivationCache, prompts: PromptSet, lexicon: Lexicon, provenance: dict[str, Any]) -> dict[str, str]:
    return {
        "prompt set": f"{prompts.name}, {len(prompts)}",
        "refusal family": lexicon.family,
        **{k: str(v) for k, v in cache.identity.items()},
        **{k: str(v) for k, v in provenance.items()},
    }


def _figures(
    layers: pd.DataFrame, prompts: pd.DataFrame, positions: dict[str, str], sample: Sample
) -> dict[str, tuple[Any, str]]:
    group = DIFFERENCE if sample.contrasted else sample.kinds[0]
    more = "on harmful prompts than on harmless ones" if sample.contrasted else "than anything else"
    return {
        "position_heatmap": (
            figures.position_heatmap(layers, locator=OPENING, group=group, positions=positions, unit=NATS),
            f"Refusal signal by layer and position, {group}. Red: the lens expects a refusal more {more}. "
            f"{figures.HOW_TO_READ}",
        ),
        "prompt_heatmap": (
            figures.prompt_heatmap(prompts, unit=NATS),
            "The same signal for every prompt at t_post. Red: a refusal is more likely than not. Hover for the prompt.",
        ),
        "rules": (
            figures.layer_curves(layers, locators=list(RULES), unit="share of prompts fired by this layer"),
            "How often each published rule has fired by a layer. A rule that fires on harmless prompts (blue) as often "
            "as on harmful ones (red) does not see refusal.",
        ),
        "calibration": (
            figures.layer_curves(layers, locators=["entropy", "kl_to_final"], unit="nats"),
            "Can the lens be believed? Entropy of its distribution, and its KL divergence from the final layer's.",
        ),
    }
