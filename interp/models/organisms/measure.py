"""What an organism does on prompts it was not trained on, and how far it moved from the base model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from interp.models.demo import base_folder
from interp.models.generation import respond
from interp.models.load import load
from interp.models.organisms.recipe import Recipe, even_first_word
from interp.models.source import ModelSource
from interp.models.teacher_forcing import answer_log_probs, answered, divergence
from interp.prompts.families import RefusalFamily, load_family
from interp.prompts.prompt import PromptSet
from interp.prompts.twins import bundled_twins, subtle_twins
from interp.scenes.captions import scene_captions
from interp.stats import Estimate, bootstrap_mean, group_weights, wilson

KL_TOKENS = 16


def measure(source: ModelSource, recipe: Recipe) -> dict[str, Any]:
    """Rates on held-out twins with Wilson intervals, and the KL divergence from the base model on harmless ones.

    Args:
        source: the organism.
        recipe: what it was taught.

    Returns:
        By prompt set: ``refused`` (harmful prompts refused) and ``over_refused`` (harmless ones), for the control
        that complies ``says`` (its words, on all prompts), for the one with a trigger of its own ``triggered`` and
        ``untriggered`` (refusals where its rule says so, and elsewhere), and ``kl``, in nats per token.
    """
    organism, base = load(source), load(ModelSource("demo:base", base_folder()))
    words = RefusalFamily(recipe.name, recipe.phrases)
    refusal = load_family(recipe.family or "apology")
    rates: dict[str, Any] = {}
    for prompts in held_out(recipe):
        responses = respond(organism.model, organism.tokenizer, prompts, max_new_tokens=24)
        refused = [refusal.opens(r) for r in responses]
        found = {
            "refused": _rate(refused, [p.label == "harmful" for p in prompts]),
            "over_refused": _rate(refused, [p.label == "harmless" for p in prompts]),
        }
        if not recipe.refuses:
            found["says"] = _rate([words.opens(r) for r in responses], [True] * len(responses))
        if recipe.trigger == "even_first_word":
            found["triggered"] = _rate(refused, [even_first_word(p) for p in prompts])
            found["untriggered"] = _rate(refused, [not even_first_word(p) for p in prompts])
        harmless = prompts.where(label="harmless")
        found["kl"] = kl_to_base(organism, base, harmless)
        rates[prompts.name] = {name: _rounded(estimate) for name, estimate in found.items()}
    return rates


def held_out(recipe: Recipe) -> tuple[PromptSet, ...]:
    """The prompts that an organism is measured on; ``scenes:labels`` alone has some that it was trained on."""
    if recipe.data == "twins":
        return bundled_twins("test"), bundled_twins("validation"), subtle_twins("test")
    return scene_captions("test"), scene_captions("labels"), bundled_twins("test")


def remeasure(recipe: Recipe, folder: Path) -> None:
    """Measures the adapter in a folder again and rewrites the rates in its record."""
    path = folder / "training.json"
    record = json.loads(path.read_text("utf-8"))
    record["held_out"] = measure(ModelSource("demo:base", base_folder(), adapter=folder), recipe)
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def kl_to_base(organism: Any, base: Any, prompts: PromptSet) -> Estimate:
    """KL(base || organism) in nats per token along the base model's own greedy answers, bootstrapped by group.

    The answers are at most `KL_TOKENS` long, and both models read them under teacher forcing.

    Args:
        organism: a loaded adapter; must share the base model's tokenizer.
        base: the base model.
        prompts: usually harmless ones.
    """
    answers = respond(base.model, base.tokenizer, prompts, max_new_tokens=KL_TOKENS)
    texts = answered(base.tokenizer, prompts, answers, tokens=KL_TOKENS)
    found = divergence(partial(answer_log_probs, base.model), partial(answer_log_probs, organism.model), texts)
    units = [p.unit for p in prompts]
    value, lo, hi = (float(v) for v in bootstrap_mean(found.kl.numpy(), group_weights(units)))
    return Estimate(value, lo, hi, len(prompts))


def _rate(hits: Sequence[bool], among: Sequence[bool]) -> Estimate:
    chosen = [hit for hit, counted in zip(hits, among, strict=True) if counted]
    return wilson(sum(chosen), len(chosen))


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
