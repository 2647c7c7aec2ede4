"""What to capture and in which batches: a pure function of the encoded prompts and a few limits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp.errors import UsageError

STORAGE = ("bf16", "fp32")


@dataclass(frozen=True, slots=True)
class Capture:
    """Which states are kept, and the limits a batch obeys; every field is part of a run's identity.

    Attributes:
        positions: names from `interp.models.encoding.POSITIONS`.
        layers: ascending layer numbers, or empty for all of them.
        storage: bf16 or fp32; "auto" for the compute dtype (fp32 when that is fp16, which overflows at 65504).
        token_budget: most tokens in one batch, padding counted.
        max_rows: most prompts in one batch, which is one shard.
        share_prefix: compute the tokens that all prompts begin with only once.
    """

    positions: tuple[str, ...] = ("t_inst", "t_post")
    layers: tuple[int, ...] = ()
    storage: str = "auto"
    token_budget: int = 4096
    max_rows: int = 128
    share_prefix: bool = True

    def resolve(self, *, n_layers: int, compute_dtype: str) -> "Capture":
        """The same with layers and storage decided for a model of ``n_layers`` blocks.

        Raises:
            UsageError: for layers that do not exist or are not ascending, an unknown storage dtype, no positions, or
                limits below 1.
        """
        if not self.positions:
            raise UsageError("positions: name at least one, such as t_inst.")
        if self.token_budget < 1 or self.max_rows < 1:
            raise UsageError(f"token budget {self.token_budget} and rows {self.max_rows} must both be at least 1.")
        storage = self.storage
        if storage == "auto":
            storage = "bf16" if compute_dtype == "bf16" else "fp32"
        if storage not in STORAGE:
            raise UsageError(f"storage {self.storage!r} is not one of auto, {', '.join(STORAGE)}.")
        layers = tuple(self.layers) or tuple(range(n_layers + 1))
        if list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] <= n_layers:
            raise UsageError(f"layers {list(layers)} must ascend within 0 to {n_layers} for this model.")
        return replace(self, positions=tuple(self.positions), layers=layers, storage=storage)


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of a harvest; shard k holds the prompts ``shards[k]``, in that order.

    Attributes:
        shards: prompt indices of every shard; together each prompt exactly once.
        shared: how many leading tokens all prompts have in common and compute once.
        tokens: how many tokens of every shard's batch run through the model, padding counted.
        ids_sha256: digest of the token ids; a chat template that writes the date makes others tomorrow.
    """

    shards: tuple[tuple[int, ...], ...]
    shared: int
    tokens: tuple[int, ...]
    ids_sha256: str = ""


def make_plan(
    ids: Sequence[Sequence[int]],
    first_read: Sequence[int],
    *,
    token_budget: int,
    max_rows: int,
    share_prefix: bool,
) -> Plan:
    """Cuts prompts, sorted by length, into batches under the limits.

    Args:
        ids: token ids of every prompt.
        first_read: for every prompt the lowest token index that is read; the shared prefix ends before it.
        token_budget: most tokens in one batch, padding counted; a longer prompt gets a batch of its own.
        max_rows: most prompts in one batch.
        share_prefix: False computes every token of every prompt.

    Returns:
        The plan; sorting is stable, so equal inputs give equal plans.
    """
    shared = min(_common_prefix(ids), min(first_read)) if share_prefix and len(ids) > 1 else 0
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    shards: list[list[int]] = []
    for i in order:
        width = len(ids[i]) - shared
        full = not shards or len(shards[-1]) >= max_rows or width * (len(shards[-1]) + 1) > token_budget
        if full:
            shards.append([])
        shards[-1].append(i)
    tokens = tuple((len(ids[s[-1]]) - shared) * len(s) for s in shards)
    return Plan(tuple(map(tuple, shards)), shared, tokens, _digest(ids))


def _digest(ids: Sequence[Sequence[int]]) -> str:
    text = "\n".join(" ".join(map(str, row)) for row in ids)
    return hashlib.sha256(text.encode()).hexdigest()


def _common_prefix(ids: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix of all sequences; the lexicographic extremes decide it."""
    low, high = min(map(tuple, ids)), max(map(tuple, ids))
    same = (a == b for a, b in zip(low, high, strict=False))
    length = 0
    while next(same, False):
        length += 1
    return length
