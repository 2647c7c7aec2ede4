"""One layer's translator: the affine map after which the readout says what it says of the final state.

It is fitted in two stages, each kept only where held-out rows are read better by it. First ridge regression of the
final state on the layer's, shrunk towards the identity, in closed form; then a few steps of gradient descent on the
divergence itself. Regression does most of it: with a few thousand states of a 135 M model it leaves 0.3 of 43 nats at a
middle layer, and descent, which overfits within a few passes, takes a tenth of the rest (half at the embedding).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.lens.readout import Readout

Stage = Literal["identity", "ridge", "descent"]
Rows = Float[Tensor, "row d_model"]

PENALTIES = (1e-6, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties tried, in units of the mean variance of the layer's states."""
FREQUENT, RARE = 4096, 1024
"""Descent reads the tokens that the final layer makes most probable, and a sample of the others anew every epoch."""
EPOCHS, PATIENCE, ROWS = 6, 2, 128
RATE = 1e-4
"""Adam's learning rate, in units of the spread of the translated states."""
BLOCK = 2**24
"""Most logits held at once, 64 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Translator:
    """An affine map of the states of one layer, kept as its difference from the identity.

    Attributes:
        matrix: (d_model, d_model) float32, A of ``h + h @ A + b``; zeros for the identity.
        bias: (d_model,) float32, b.
        stage: what made it.
    """

    matrix: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]
    stage: Stage = "identity"

    def __call__(self, states: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The states in the basis of the final layer, float32."""
        return states + states @ self.matrix + self.bias


@dataclass(frozen=True, slots=True)
class Target:
    """What all layers of a lens are fitted to.

    Attributes:
        final: the final states of the rows that are fitted.
        log_z: log of the softmax denominator of each, over the whole vocabulary.
        frequent: the vocabulary ids that are most probable on average over the rows, ascending.
        rare: all other ids; may be empty.
        chosen_by: the final states of the rows that choose between fits.
    """

    final: Rows
    log_z: Float[Tensor, " row"]
    frequent: Int[Tensor, " frequent"]
    rare: Int[Tensor, " rare"]
    chosen_by: Float[Tensor, "held d_model"]


def identity(d_model: int, device: torch.device) -> Translator:
    """The translator that changes nothing: the logit lens."""
    return Translator(torch.zeros(d_model, d_model, device=device), torch.zeros(d_model, device=device))


@torch.no_grad()
def target(final: Rows, chosen_by: Float[Tensor, "held d_model"], readout: Readout) -> Target:
    """Reads the final states once, for all layers."""
    share = torch.zeros(readout.vocab, device=final.device)
    log_z = []
    for block in final.split(max(1, BLOCK // readout.vocab)):
        logits = _quick_logits(block, readout)
        log_z.append(logits.logsumexp(-1))
        share += (logits - log_z[-1][:, None]).exp().sum(0)
    order = share.argsort(descending=True)
    return Target(final, torch.cat(log_z), order[:FREQUENT].sort().values, order[FREQUENT:], chosen_by)


def fit_translator(
    states: Rows, held: Float[Tensor, "held d_model"], goal: Target, readout: Readout, *, seed: int
) -> Translator:
    """Fits one layer.

    Args:
        states: float32 states of the layer, the rows of ``goal.final``.
        held: those of the rows of ``goal.chosen_by``; they choose the penalty and when descent stops.
        goal: the final states.
        readout: the model's own.
        seed: of the order of the rows and of the sampled vocabulary.

    Returns:
        Of the identity, the ridge fits and the steps of descent the one with the least divergence on ``held``.
    """
    fits = [identity(states.shape[1], states.device), *ridge(states, goal.final)]
    kls = divergences([fit(held) for fit in fits], goal.chosen_by, readout, quick=True).mean(0)
    kls = kls.nan_to_num(torch.inf)
    best, least = fits[int(kls.argmin())], float(kls.min())
    waited = 0
    for fit in descend(best, states, goal, readout, seed=seed):
        kl = float(divergences([fit(held)], goal.chosen_by, readout, quick=True).mean())
        waited = 0 if kl < least else waited + 1
        if kl < least:
            best, least = fit, kl
        if waited == PATIENCE:
            break
    return best


def ridge(states: Rows, final: Rows) -> Iterator[Translator]:
    """Affine least squares of the final states on a layer's, one fit per entry of `PENALTIES`.

    The penalty is on the difference from the identity; the bias is free (Belrose et al. let weight decay do this).
    """
    mean, final_mean = states.mean(0), final.mean(0)
    centred = (states - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    aligned = vectors.T @ (centred.T @ ((final - final_mean).double() - centred))
    unit = values.mean().clamp(min=torch.finfo(torch.float32).tiny)
    for penalty in PENALTIES:
        matrix = (vectors @ (aligned / (values.clamp(min=0) + penalty * unit)[:, None])).float()
        yield Translator(matrix, final_mean - mean - mean @ matrix, "ridge")


def descend(start: Translator, states: Rows, goal: Target, readout: Readout, *, seed: int) -> Iterator[Translator]:
    """Goes down the divergence from the final layer from a start; yields the translator after every epoch.

    The final layer's probabilities and the lens's denominator are sums over `FREQUENT` tokens and, weighted, over
    `RARE` others drawn uniformly (sampled softmax), so that a step costs a fraction of the vocabulary.
    """
    random = torch.Generator().manual_seed(seed)
    begun, mean = start(states), states.mean(0)
    spread = (states - mean).square().mean().sqrt().clamp(min=1e-12)
    inputs = (states - mean) / spread
    change = torch.zeros_like(start.matrix, requires_grad=True)
    shift = torch.zeros_like(start.bias, requires_grad=True)
    optimizer = torch.optim.Adam([change, shift], lr=RATE * float((begun - begun.mean(0)).square().mean().sqrt()))
    for _ in range(EPOCHS):
        drawn = goal.rare[torch.randperm(len(goal.rare), generator=random)[:RARE].to(goal.rare.device)]
        part = readout.only(torch.cat([goal.frequent, drawn]))
        weight = torch.zeros(part.vocab, device=states.device)
        if len(drawn):
            weight[len(goal.frequent) :] = math.log(len(goal.rare) / len(drawn))
        for rows in torch.randperm(len(states), generator=random).to(states.device).split(ROWS):
            loss = _sampled_loss(begun[rows] + inputs[rows] @ change + shift, rows, goal, part, weight)
            change.grad, shift.grad = torch.autograd.grad(loss, (change, shift))
            optimizer.step()
        moved = change.detach() / spread
        yield Translator(start.matrix + moved, start.bias + shift.detach() - mean @ moved, "descent")


def _sampled_loss(
    translated: Rows,
    rows: Int[Tensor, " row"],
    goal: Target,
    part: Readout,
    weight: Float[Tensor, " chunk"],
) -> Float[Tensor, ""]:
    """The mean cross entropy of the translated states against the final ones; ``weight`` is a log."""
    with torch.no_grad():
        wanted = (_quick_logits(goal.final[rows], part) - goal.log_z[rows, None] + weight).exp()
    logits = _quick_logits(translated, part)
    return -(wanted * (logits - (logits + weight).logsumexp(-1, keepdim=True))).sum(-1).mean()


@torch.no_grad()
def divergences(
    ways: Sequence[Rows], final: Rows, readout: Readout, *, quick: bool = False
) -> Float[Tensor, "row way"]:
    """KL(final || way) in nats, of the next-token distributions over the whole vocabulary; streamed over rows.

    Args:
        ways: the same rows translated in different ways.
        final: their final states.
        readout: the model's own.
        quick: multiply in the dtype of the unembedding; on CPUs with 16-bit products several times faster, and off
            by some 0.01 nats. Else in float32, as `interp.lens.logit_lens`.

    Returns:
        At least 0, float32; NaN for states that are not finite.
    """
    parts = []
    size = max(1, BLOCK // (readout.vocab * (len(ways) + 1)))
    for start in range(0, len(final), size):
        every = torch.stack([*(way[start : start + size] for way in ways), final[start : start + size]], 1)
        logits = _quick_logits(every, readout) if quick else readout.logits(readout.normed(every))
        log_z = logits.logsumexp(-1)
        p = (logits[:, -1] - log_z[:, -1:]).exp()
        expected = (logits @ p[:, :, None])[..., 0] - log_z
        parts.append((expected[:, -1:] - expected[:, :-1]).clamp(min=0))  # rounding can leave -1e-6
    return torch.cat(parts)


def _quick_logits(states: Float[Tensor, "*n d_model"], readout: Readout) -> Float[Tensor, "*n vocab"]:
    """Logits by a product in the dtype of the unembedding, float32; a gradient reaches the states."""
    return readout.logits(readout.norm(states).to(readout.weight.dtype)).float()
