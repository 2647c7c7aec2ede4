"""What the lens reads from a cache, once for all that a scan says."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analyses.locators.firing import Firing
from analyses.locators.tga_paper import tga_paper
from analyses.locators.tga_released import tga_released
from interp.cache import ActivationCache
from interp.cache.derived import keep_arrays, kept_arrays
from interp.lens import LensReading, Readout, logit_lens, token_log_probs
from interp.models.lexicon import Lexicon
from interp.provenance import code_digest

WRITTEN_BY = ("interp.lens", "interp.cache", "analyses.readings")
"""The code that decides what is read."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything a scan reads, per prompt.

    Attributes:
        layers: layer numbers.
        openings: position -> (prompt, layer) log-odds, in nats, that the next token opens a refusal.
        lens: the full reading at t_post.
        rules: the two published rules at t_post.
    """

    layers: tuple[int, ...]
    openings: dict[str, Float[ndarray, "prompt layer"]]
    lens: LensReading
    rules: tuple[Firing, ...]


def read_cache(
    cache: ActivationCache, readout: Readout, lexicon: Lexicon, *, progress: Progress | None = None
) -> Readings:
    """Reads every position for refusal openings, and t_post in full.

    Args:
        cache: states of consecutive layers at t_post and any other positions.
        readout: of the model that made the cache.
        lexicon: the ids to watch.
        progress: called with (positions done, positions in all).
    """
    tokens = torch.tensor(lexicon.openings)
    openings = {}
    others = [p for p in cache.positions if p != "t_post"]
    for done, position in enumerate(others, start=1):
        log_prob = token_log_probs(cache.residuals(position=position), readout, tokens=tokens)
        openings[position] = log_odds(log_prob)
        if progress:
            progress(done, len(cache.positions))
    lens = logit_lens(cache.residuals(position="t_post"), readout, tokens=tokens)
    if progress:
        progress(len(cache.positions), len(cache.positions))
    return _readings(cache, lexicon, openings, lens)


def kept_readings(
    cache: ActivationCache,
    readout: Readout,
    lexicon: Lexicon,
    *,
    expect: Callable[[float], None] = lambda _: None,
    progress: Progress | None = None,
) -> Readings:
    """What `read_cache` gives, kept beside the run in its local folder: a second call reads nothing.

    Args:
        cache: as of `read_cache`, in a local folder.
        readout: as there.
        lexicon: as there.
        expect: told how many seconds it will take, before anything is read.
        progress: as there.
    """
    folder, stamp = Path(cache.place), _stamp(cache, lexicon.openings)
    lens, openings = kept_reading(cache, "lens", lexicon.openings), kept_arrays(folder, "openings", stamp)
    if lens is not None and openings is not None:
        return _readings(cache, lexicon, openings, lens)
    expect(expected_seconds(cache, readout))
    found = read_cache(cache, readout, lexicon, progress=progress)
    keep_reading(cache, "lens", lexicon.openings, found.lens)
    keep_arrays(folder, "openings", stamp, {p: v for p, v in found.openings.items() if p != "t_post"})
    return found


def keep_reading(
    cache: ActivationCache, name: str, tokens: Sequence[int], reading: LensReading, **decided_by: Any
) -> None:
    """Keeps a reading of a cache's states beside them.

    Args:
        cache: in a local folder.
        name: of the reading's file.
        tokens: ids whose probabilities it has.
        reading: of all prompts and layers at one position.
        decided_by: what else decided it, as JSON.
    """
    arrays = {f.name: getattr(reading, f.name).numpy() for f in fields(LensReading)}
    keep_arrays(Path(cache.place), name, _stamp(cache, tokens, **decided_by), arrays)


def kept_reading(cache: ActivationCache, name: str, tokens: Sequence[int], **decided_by: Any) -> LensReading | None:
    """A reading that `keep_reading` kept with the same arguments under the same code; None where there is none."""
    arrays = kept_arrays(Path(cache.place), name, _stamp(cache, tokens, **decided_by))
    return None if arrays is None else LensReading(**{key: torch.from_numpy(value) for key, value in arrays.items()})


def _stamp(cache: ActivationCache, tokens: Sequence[int], **decided_by: Any) -> dict[str, Any]:
    return {"run": cache.key, "tokens": list(tokens), "code": code_digest(*WRITTEN_BY), **decided_by}


def _readings(
    cache: ActivationCache, lexicon: Lexicon, others: dict[str, Float[ndarray, "prompt layer"]], lens: LensReading
) -> Readings:
    """Of the openings at all positions but t_post, and the full reading there."""
    openings = {**others, "t_post": log_odds(lens.log_prob)}
    rules = (tga_paper(lens, cache.layers, lexicon.paper), tga_released(lens, cache.layers, lexicon.released))
    return Readings(cache.layers, {p: openings[p] for p in cache.positions}, lens, rules)


def expected_seconds(cache: ActivationCache, readout: Readout) -> float:
    """How long `read_cache` will take here, from a few timed states."""
    some = torch.zeros(256, cache.d_model)
    tokens = torch.tensor([0])
    token_log_probs(some, readout, tokens=tokens)  # the first call warms up
    started = time.perf_counter()
    token_log_probs(some, readout, tokens=tokens)
    once = (time.perf_counter() - started) / len(some) * len(cache) * len(cache.layers)
    # The full reading at t_post takes about six times as long as log-probabilities alone.
    return once * (len(cache.positions) + 5)


def log_odds(log_prob: Float[Tensor, "prompt layer token"]) -> Float[ndarray, "prompt layer"]:
    """log(p / (1 - p)) of the summed probability of the tokens, in nats; at most 27.6, where p rounds to 1."""
    log_p = log_prob.double().logsumexp(-1).clamp(max=-1e-12)
    return (log_p - torch.log(-torch.expm1(log_p))).numpy()
