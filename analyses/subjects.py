"""A model as the subject of a study: its states, its answers, and what every reading says of each prompt.

Everything is kept beside the run it belongs to, so that a second study of the same prompts loads no model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from analyses.answers import answers
from analyses.locators.tga_paper import tga_paper
from analyses.locators.tga_released import tga_released
from analyses.readings import log_odds
from interp.cache import ActivationCache, Capture, Harvest, plan_harvest, run_harvest
from interp.cache.derived import Arrays, keep_arrays, kept_arrays
from interp.cache.identity import make_identity, run_key
from interp.errors import CacheError
from interp.judges import Behaviour, behaviour, judge, judged_families
from interp.lens import logit_lens
from interp.models.adapter import Adapter
from interp.models.family_likelihood import family_log_likelihood
from interp.models.lexicon import compile_lexicon
from interp.models.load import count_blocks, load, load_random_twin
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts import PromptSet
from interp.prompts.families import family_names, load_family
from interp.provenance import code_digest

POSITIONS = ("t_inst", "t_post")
ANSWER_TOKENS = 20
READ_BY = ("interp.lens", "interp.models", "interp.prompts", "analyses.locators")
"""The packages whose code decides a reading; one made by other code is made again."""
Loader = Callable[[], Adapter]
Runner = Callable[[Harvest, Path], Path]


@dataclass(frozen=True)
class Subject:
    """One model on one set of prompts.

    Attributes:
        name: of the model.
        prompts: what it was asked.
        cache: its states at t_inst and t_post.
        responses: its greedy answers, cut at `ANSWER_TOKENS` tokens.
        readings: ``opening_logodds`` (prompt, layer), how likely the lens makes a first token of the apology family;
            ``tga_paper`` and ``tga_released`` (prompt,), the first layer at which each rule fires, inf for never;
            ``family`` (prompt, family) log-likelihood in nats that the answer opens as each of `family_names` does.
    """

    name: str
    prompts: PromptSet
    cache: ActivationCache
    responses: tuple[str, ...]
    readings: Arrays

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """What every judge says of every response."""
        return judge(self.responses)

    @cached_property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """What it did with every prompt, told from how its response begins: what every detector is held to."""
        return tuple(map(behaviour, self.responses))

    @cached_property
    def refused(self) -> Bool[ndarray, " prompt"]:
        """Which prompts it refused."""
        return np.array([b == "refused" for b in self.behaviours])

    @cached_property
    def counted(self) -> Bool[ndarray, " prompt"]:
        """Which prompts it either refused or complied with: evasive, empty and broken responses are neither."""
        return np.array([b in ("refused", "complied") for b in self.behaviours])

    @cached_property
    def family(self) -> str:
        """The family most of its refusals open as; ``none`` where it refuses nothing."""
        opened = self.verdicts["opens_as"][self.refused]
        return str(opened.mode()[0]) if len(opened) else "none"

    @property
    def kind(self) -> str:
        """That family whatever its language."""
        return self.family.partition(".")[0]

    @property
    def harmful(self) -> Bool[ndarray, " prompt"]:
        """Which prompts ask for harm."""
        return np.array([p.label == "harmful" for p in self.prompts])

    @property
    def groups(self) -> tuple[str, ...]:
        """The resampling unit of every prompt."""
        return tuple(p.unit for p in self.prompts)

    def states(self, position: str = "t_post") -> Float[torch.Tensor, "layer prompt d"]:
        """All layers at one position, float32."""
        return self.cache.residuals(position=position).permute(1, 0, 2).contiguous()


def measure(
    source: ModelSource, runtime: Runtime, prompts: PromptSet, root: Path, *, notify: Callable[[str], None]
) -> Subject:
    """Measures a model, or takes what was measured before; the model is loaded only if something is missing.

    Args:
        source: the model.
        runtime: resolved.
        prompts: what it is asked.
        root: the folder of run folders.
        notify: told in one line what is happening.
    """
    adapter: list[Adapter] = []

    def loaded() -> Adapter:
        if not adapter:
            notify(f"Loading {source.name}.")
            adapter.append(load(source, runtime))
        return adapter[0]

    cache = harvested(source, runtime, prompts, Capture(POSITIONS), root, loaded)
    responses = answers(cache, prompts, loaded, tokens=ANSWER_TOKENS)
    folder, stamp = root / cache.key, {"run": cache.key, "code": code_digest(*READ_BY)}
    readings = kept_arrays(folder, "readings", stamp)
    if readings is None:
        notify(f"Reading {source.name} through the lens and for refusal families.")
        readings = _read(loaded(), cache, prompts)
        keep_arrays(folder, "readings", stamp, readings)
    return Subject(source.name, prompts, cache, responses, readings)


def harvested(
    source: ModelSource,
    runtime: Runtime,
    prompts: PromptSet,
    capture: Capture,
    root: Path,
    loaded: Loader,
    run: Runner = run_harvest,
) -> ActivationCache:
    """The cache of a model on prompts; the model is loaded only when states are missing.

    Args:
        source: the model.
        runtime: resolved.
        prompts: what it is asked.
        capture: which states.
        root: the folder of run folders.
        loaded: loads the model.
        run: runs a planned harvest under ``root``.
    """
    resolved = capture.resolve(n_layers=count_blocks(source), compute_dtype=runtime.dtype)
    key = run_key(make_identity(source.identify(), runtime, prompts, resolved))
    try:
        return ActivationCache.open(root / key)
    except CacheError:
        return ActivationCache.open(run(plan_harvest(loaded(), prompts, resolved), root))


def random_twin(
    source: ModelSource,
    runtime: Runtime,
    prompts: PromptSet,
    capture: Capture,
    root: Path,
    seed: int = 0,
    run: Runner = run_harvest,
) -> ActivationCache:
    """The cache of the model's random twin: the same configuration and tokenizer, weights drawn with a seed."""
    return ActivationCache.open(run(plan_harvest(load_random_twin(source, runtime, seed), prompts, capture), root))


def _read(adapter: Adapter, cache: ActivationCache, prompts: PromptSet) -> Arrays:
    lexicon = compile_lexicon(adapter.tokenizer, load_family("apology"))
    lens = logit_lens(cache.residuals(position="t_post"), adapter.readout(), tokens=torch.tensor(lexicon.openings))
    families = [load_family(name) for name in family_names()]
    likelihood = family_log_likelihood(adapter.model, adapter.processor, prompts, families, floor=1e-3)
    return {
        "opening_logodds": log_odds(lens.log_prob),
        "tga_paper": tga_paper(lens, cache.layers, lexicon.paper).onset,
        "tga_released": tga_released(lens, cache.layers, lexicon.released).onset,
        "family": likelihood.double().numpy(),
    }


def family_mass(subject: Subject) -> Float[ndarray, " prompt"]:
    """Log-likelihood in nats that an answer opens as any refusal family but evasion does, at most 0."""
    judged = {family.name for family in judged_families()}
    chosen = [i for i, name in enumerate(family_names()) if name in judged]
    return np.asarray(np.minimum(np.logaddexp.reduce(subject.readings["family"][:, chosen], axis=1), 0.0))
