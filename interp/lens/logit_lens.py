"""The logit lens (nostalgebraist 2020), streamed over the vocabulary.

Every layer's state is read through the model's own readout. Nothing of size prompts x layers x vocab is ever held:
a block of prompts meets the vocabulary in chunks, twice - once for the normaliser, once for everything else.

A logit lens misreads early layers, whose states are not yet in the basis of the head: entropy and the divergence from
the final layer stand beside every reading so that this shows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.axes import States, TokenIds
from interp.lens.readout import Readout

CHUNK = 8192
BLOCK = 2**24
"""Most logits held at once: a block of prompts x layers x chunk, 64 MiB in float32."""


@dataclass(frozen=True, slots=True)
class LensReading:
    """What the lens sees, for every prompt and layer; all logs are natural.

    Attributes:
        log_prob: (prompt, layer, token) log-probability of the tokens asked for.
        rank: (prompt, layer, token) how many vocabulary entries are more probable, 0 for the arg-max.
        top: (prompt, layer, k) the most probable ids, best first.
        rise: (prompt, layer, k) ids with the largest log(P_j / P_{j-1}); -1 at the first layer, which has no
            predecessor.
        gain: (prompt, layer, k) ids with the largest P_j - P_{j-1}; -1 at the first layer.
        entropy: (prompt, layer) in nats, from 0 to log(vocab).
        kl_to_final: (prompt, layer) KL(P_final || P_j) in nats, 0 at the last layer.
    """

    log_prob: Float[Tensor, "prompt layer token"]
    rank: Int[Tensor, "prompt layer token"]
    top: Int[Tensor, "prompt layer k"]
    rise: Int[Tensor, "prompt layer k"]
    gain: Int[Tensor, "prompt layer k"]
    entropy: Float[Tensor, "prompt layer"]
    kl_to_final: Float[Tensor, "prompt layer"]


def logit_lens(
    states: States,
    readout: Readout,
    *,
    tokens: TokenIds,
    k: int = 5,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> LensReading:
    """Reads every layer of every prompt through the model's readout.

    Args:
        states: (prompt, layer, d_model) residual states; the last layer given is the final one of ``kl_to_final``.
        readout: the model's own.
        tokens: (token,) ids whose log-probability and rank are wanted.
        k: how many ids of ``top``, ``rise`` and ``gain`` are kept; 0 saves a third of the time.
        chunk: vocabulary entries read at once; changes memory and speed, not the result.
        progress: called with (prompts done, prompts in all).

    Returns:
        The reading, on the CPU, float32 and int64.
    """
    size = max(1, BLOCK // (states.shape[1] * chunk))
    parts = []
    for start in range(0, len(states), size):
        parts.append(_read_block(states[start : start + size], readout, tokens, k, chunk))
        if progress:
            progress(min(start + size, len(states)), len(states))
    return LensReading(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(LensReading)))


@torch.no_grad()
def token_log_probs(
    states: Float[Tensor, "*n d_model"], readout: Readout, *, tokens: TokenIds, chunk: int = CHUNK
) -> Float[Tensor, "*n token"]:
    """Log-probabilities (nats) of the given tokens only; half the work of `logit_lens`."""
    flat = states.reshape(-1, states.shape[-1])
    parts = []
    for block in flat.split(max(1, BLOCK // chunk)):
        normed = readout.normed(block)
        normaliser, picked = _normaliser(normed, readout, tokens, chunk)
        parts.append((picked - normaliser[..., None]).cpu())
    return torch.cat(parts).reshape(*states.shape[:-1], len(tokens))


def _read_block(states: Tensor, readout: Readout, tokens: Tensor, k: int, chunk: int) -> LensReading:
    normed = readout.normed(states)
    log_z, picked = _normaliser(normed, readout, tokens, chunk)
    sums = _Sums(states.shape[:2], len(tokens), k, normed.device)
    for start, logits in _chunks(normed, readout, chunk):
        sums.add(start, logits - log_z[..., None], picked - log_z[..., None])
    return sums.reading(picked - log_z[..., None])


def _chunks(normed: Tensor, readout: Readout, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, readout.vocab, chunk):
        yield start, readout.logits(normed, start, min(start + chunk, readout.vocab))


def _normaliser(
    normed: Tensor, readout: Readout, tokens: Tensor, chunk: int
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n token"]]:
    """The log of the softmax denominator, and the logits of the tokens."""
    log_z = torch.full(normed.shape[:-1], -torch.inf, device=normed.device)
    picked = torch.empty(*normed.shape[:-1], len(tokens), device=normed.device)
    tokens = tokens.to(normed.device)
    for start, logits in _chunks(normed, readout, chunk):
        log_z = torch.logaddexp(log_z, logits.logsumexp(-1))
        here = (tokens >= start) & (tokens < start + logits.shape[-1])
        # The very numbers of this chunk, so that a rank compares a logit with itself exactly.
        picked[..., here] = logits[..., tokens[here] - start]
    return log_z, picked


class _Sums:
    """What accumulates while the vocabulary streams by, for one block of prompts."""

    def __init__(self, shape: torch.Size, n_tokens: int, k: int, device: torch.device) -> None:
        self.rank = torch.zeros(*shape, n_tokens, dtype=torch.long, device=device)
        self.entropy = torch.zeros(shape, device=device)
        self.kl = torch.zeros(shape, device=device)
        self.k = k
        self.best = {name: _Best(shape, k, device) for name in ("top", "rise", "gain")}

    def add(self, start: int, log_p: Tensor, picked: Tensor) -> None:
        """Takes in the log-probabilities (prompt, layer, chunk) of the entries from ``start`` on."""
        p = log_p.exp()
        self.entropy -= (p * log_p).sum(-1)
        final = log_p[:, -1:]
        self.kl += (p[:, -1:] * (final - log_p)).sum(-1)
        for i in range(picked.shape[-1]):
            self.rank[..., i] += (log_p > picked[..., i, None]).sum(-1)
        if not self.k:
            return
        self.best["top"].add(start, log_p)
        self.best["rise"].add(start, _from_previous(log_p))
        self.best["gain"].add(start, _from_previous(p))

    def reading(self, log_prob: Tensor) -> LensReading:
        """The accumulated results, on the CPU."""
        best = {name: b.ids.cpu() for name, b in self.best.items()}
        for name in ("rise", "gain"):
            best[name][:, 0] = -1
        return LensReading(
            log_prob=log_prob.cpu(),
            rank=self.rank.cpu(),
            entropy=self.entropy.cpu(),
            kl_to_final=self.kl.cpu().clamp(min=0),  # rounding can leave -1e-7
            **best,
        )


class _Best:
    """The k largest entries seen so far and their vocabulary ids; the lower id wins a tie."""

    def __init__(self, shape: torch.Size, k: int, device: torch.device) -> None:
        self.values = torch.full((*shape, k), -torch.inf, device=device)
        self.ids = torch.full((*shape, k), -1, device=device)

    def add(self, start: int, values: Tensor) -> None:
        k = self.values.shape[-1]
        new, index = values.topk(min(k, values.shape[-1]), dim=-1)
        merged = torch.cat([self.values, new], -1)
        ids = torch.cat([self.ids, index + start], -1)
        order = merged.argsort(dim=-1, descending=True, stable=True)[..., :k]
        self.values, self.ids = merged.gather(-1, order), ids.gather(-1, order)


def _from_previous(values: Tensor) -> Tensor:
    """Each layer minus the one before it; zeros at the first."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, 1:] - values[:, :-1]], dim=1)
