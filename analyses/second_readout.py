"""A tuned lens as the second readout of a study: fitted to a cache once and kept beside it.

The logit lens and the tuned lens err on different sides. The first misreads early layers, which are not written in the
basis of the head; the second may learn to read what the network itself never reads there. What both see is there to be
read.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analyses.panel import TUNED
from analyses.readings import keep_reading, kept_reading
from analyses.sample import Sample
from analyses.scan_tables import mean_rows
from interp.cache import ActivationCache
from interp.causal import states_at
from interp.errors import ModelMismatch, UsageError
from interp.lens import LensReading, Readout, TunedLens, logit_lens
from interp.models.adapter import Adapter
from interp.prompts.prompt import Prompt
from interp.provenance import code_digest
from interp.study import LAYERS_COLUMNS

POSITION = "t_post"
FEWEST_GROUPS = 12
"""Groups of prompts below which no lens is fitted: it would be judged on two of them."""
FOLDER = "tuned_lens"
Progress = Callable[[int, int], None]


def kept_lens(
    cache: ActivationCache, readout: Readout, groups: Sequence[str], *, seed: int = 0, progress: Progress | None = None
) -> TunedLens | None:
    """The lens tuned to the states of a cache at t_post, fitted or taken from its folder.

    Args:
        cache: of all layers, in a local folder.
        readout: of the model that made it.
        groups: of its prompts.
        seed: of the split and of descent.
        progress: called with (layers done, layers in all) while it is fitted.

    Returns:
        None for fewer than `FEWEST_GROUPS` groups.
    """
    if len(set(groups)) < FEWEST_GROUPS:
        return None
    about = {k: str(v) for k, v in cache.identity.items() if k.startswith("model.")}
    about |= {"run": cache.key, "seed": str(seed), "code": code_digest("interp.lens")}
    folder = Path(cache.place) / FOLDER
    try:
        return TunedLens.load(folder, model=about)
    except (UsageError, ModelMismatch):
        states = cache.residuals(position=POSITION)
        lens = TunedLens.fit(states, cache.layers, readout, groups, model=about, seed=seed, progress=progress)
        lens.save(folder)
        return lens


def kept_second_reading(
    cache: ActivationCache, readout: Readout, lens: TunedLens, tokens: Sequence[int]
) -> LensReading:
    """What the logit lens reads at t_post of states that a tuned lens translated, read or taken from the folder.

    It names no most likely tokens.

    Args:
        cache: of the layers of the lens, in a local folder.
        readout: of the model that made it.
        lens: tuned to the model.
        tokens: ids whose probabilities are wanted.
    """
    about = {"lens": hashlib.sha256(lens.matrices.numpy().tobytes()).hexdigest()}
    found = kept_reading(cache, FOLDER + "_reading", tokens, **about)
    if found is None:
        moved = lens.translate(cache.residuals(position=POSITION), cache.layers)
        found = logit_lens(moved, readout, tokens=torch.tensor(tokens), k=0)
        keep_reading(cache, FOLDER + "_reading", tokens, found, **about)
    return found


def fit_on(
    adapter: Adapter, prompts: Sequence[Prompt], *, seed: int = 0, progress: Progress | None = None
) -> TunedLens:
    """A lens tuned to a model's states at t_post of some prompts, which are read for it and not kept."""
    layers = range(adapter.n_layers + 1)
    states = states_at(adapter, prompts, layers, (-1,))[:, :, 0].float()
    about: dict[str, Any] = {"name": adapter.identity.name, "weights": adapter.identity.weights}
    groups = [p.unit for p in prompts]
    return TunedLens.fit(states, layers, adapter.readout(), groups, model=about, seed=seed, progress=progress)


def calibration_table(reading: LensReading, layers: tuple[int, ...], sample: Sample, family: str) -> pd.DataFrame:
    """How far a tuned lens at t_post can be believed: entropy and divergence from the final layer, as a layer table."""
    curves = (("entropy", reading.entropy), ("kl_to_final", reading.kl_to_final))
    rows: list[tuple[Any, ...]] = []
    for name, values in curves:
        rows += mean_rows((f"{name}{TUNED}", family, POSITION), layers, values.double().numpy(), sample)
    return pd.DataFrame(rows, columns=list(LAYERS_COLUMNS))
