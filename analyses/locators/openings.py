"""Which of a family's openings are worth reading at every layer: those that the model itself finds most likely."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from interp.errors import UsageError
from interp.lens import Readout, token_log_probs
from interp.models.adapter import Adapter
from interp.models.encoding import Encoded, Encoder
from interp.models.family_likelihood import check_room
from interp.models.opening_states import opening_states
from interp.models.phrase_trie import PhraseTrie, compile_trie
from interp.prompts import PromptSet
from interp.prompts.families import RefusalFamily
from interp.stats import group_codes

KEEP = 8
FLOOR = 1e-4


@dataclass(frozen=True, slots=True)
class KeptOpenings:
    """The most likely openings of a family.

    Attributes:
        trie: those kept.
        of: how many the family has in this vocabulary.
        share: which part of the probability that the model gives the family's openings, on average over the sample,
            those kept have: 0 to 1, NaN where it gives none of them any. What the floor cut off counts for neither.
        mass: that probability, of all openings; 0 to 1.
    """

    trie: PhraseTrie
    of: int
    share: float
    mass: float


def keep_openings(
    adapter: Adapter,
    readout: Readout,
    prompts: PromptSet,
    families: Sequence[RefusalFamily],
    *,
    keep: int = KEEP,
    floor: float = FLOOR,
    batch_size: int = 64,
) -> tuple[KeptOpenings, ...]:
    """Chooses openings by the model's own final distribution on a sample of prompts.

    Args:
        adapter: any backend.
        readout: of the same model.
        prompts: the sample, of both kinds; see `draw_groups`. It should not be what is reported on.
        families: refusal families.
        keep: how many openings of each at most; where the model finds none of them likely the shortest are kept.
        floor: probability below which a beginning is not followed, 0 to 1 (exclusive).
        batch_size: how many beginnings run at once.

    Returns:
        One per family, in their order.

    Raises:
        UsageError: for ``keep``, floor or batch size out of range, or a family without a word.
        ModelError: for a prompt that can not be encoded or leaves the model no room for the openings.
    """
    if keep < 1 or not 0 <= floor < 1 or batch_size < 1:
        raise UsageError(
            f"keep {keep}, floor {floor} and batch_size {batch_size}: give keep >= 1, 0 <= floor < 1 and "
            "batch_size >= 1."
        )
    tries = [compile_trie(adapter.tokenizer, family) for family in families]
    mass = dict.fromkeys((s for trie in tries for s in trie.sequences), 0.0)
    for asked in encoded_prompts(adapter, prompts, tries) if mass else ():
        for sequence, probability in _walk(adapter, readout, asked, frozenset(mass), floor, batch_size).items():
            mass[sequence] += probability / len(prompts)
    return tuple(_kept(trie, mass, keep) for trie in tries)


def draw_groups(prompts: PromptSet, n: int, *, seed: int) -> PromptSet:
    """A sample of whole groups, so that twins stay together.

    Args:
        prompts: what to draw from.
        n: how many prompts at most; the first group drawn is taken whatever its size.
        seed: of the draw.

    Returns:
        In the order of ``prompts``.
    """
    codes = group_codes([p.unit for p in prompts])
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken = order[: max(1, int((sizes[order].cumsum() <= n).sum()))]
    kept = np.isin(codes, taken)
    return replace(prompts, prompts=tuple(p for p, k in zip(prompts, kept, strict=True) if k))


def encoded_prompts(adapter: Adapter, prompts: PromptSet, tries: Sequence[PhraseTrie]) -> list[Encoded]:
    """Prompts up to their answers, encoded as for a harvest, with room for the openings.

    Raises:
        ModelError: for a prompt that can not be encoded or leaves the model no room.
    """
    asked = [prompt.unanswered for prompt in prompts]
    encoded = Encoder(adapter.processor).encode(asked, ["t_post"])
    check_room(asked, [e.ids for e in encoded], tries, adapter.tokenizer.model_max_length)
    return encoded


def _walk(
    adapter: Adapter,
    readout: Readout,
    asked: Encoded,
    sequences: frozenset[tuple[int, ...]],
    floor: float,
    batch_size: int,
) -> dict[tuple[int, ...], float]:
    """The probability of every sequence that was reached, one token further at every turn."""
    children: dict[tuple[int, ...], set[int]] = {}
    for s in sequences:
        for k, token in enumerate(s):
            children.setdefault(s[:k], set()).add(token)
    found: dict[tuple[int, ...], float] = {}
    alive: dict[tuple[int, ...], float] = {(): 0.0}
    while alive:
        states = opening_states(
            adapter, asked.ids, list(alive), [adapter.n_layers], batch_size=batch_size, picture=asked.picture
        )[:, 0]
        tokens = sorted({token for context in alive for token in children[context]})
        read = token_log_probs(states, readout, tokens=torch.tensor(tokens)).double().tolist()
        grown = {
            (*context, token): before + read[row][tokens.index(token)]
            for row, (context, before) in enumerate(alive.items())
            for token in children[context]
        }
        found |= {ids: math.exp(log_p) for ids, log_p in grown.items() if ids in sequences}
        alive = {ids: log_p for ids, log_p in grown.items() if ids in children and math.exp(log_p) >= floor}
    return found


def _kept(trie: PhraseTrie, mass: dict[tuple[int, ...], float], keep: int) -> KeptOpenings:
    ranked = sorted(trie.sequences, key=lambda s: (-mass[s], len(s), s))
    total = sum(mass[s] for s in ranked)
    share = sum(mass[s] for s in ranked[:keep]) / total if total > 0 else float("nan")
    return KeptOpenings(PhraseTrie(trie.family, tuple(ranked[:keep])), len(ranked), share, total)
