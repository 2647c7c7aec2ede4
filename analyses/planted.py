"""Planted truth: a refusal signal put into a frozen model at a known layer, for every locator to be held to.

On chosen harmful prompts a vector is written into the stream at t_post of layer k. A reader at the last layer says the
words of a refusal family wherever the stream lies beyond a threshold along that vector. So what decides comes to t_post
at layer k, and nowhere else, whatever else the model knows of harm. A spelled plant is written in the direction of the
words, which a lens can read from layer k on; a hidden one in a random direction, which only the reader knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.plant_edits import Reader, Signal
from analyses.readings import log_odds
from interp.causal import Edit, Tails
from interp.errors import ModelError, UsageError
from interp.lens import Readout, token_log_probs
from interp.models.adapter import Adapter
from interp.prompts.prompt import PromptSet

TOLD, WEAKEST, DOUBLINGS = 0.9, -2, 10
"""How well the last layer must tell who carries a signal (share of carriers beyond the threshold, minus that of all
others) before a refusal hangs on it; the strengths tried for that are powers of two from this exponent on."""
STEPS, STEP = 40, 0.1
"""Of the ascent to the words, in norms of the state it begins at."""
SAID, SLOWEST = 4.0, 0.1
"""Least log-odds, in nats, that the reader gives the words where the signal is carried, a tenth of these aside."""


@dataclass(frozen=True, slots=True)
class Plant:
    """What is planted.

    Attributes:
        layer: k, where the signal is written, 1 to L.
        strength: length of the signal in root mean square distances of the layer's states from their mean.
        spelled: whether it points the way of the words, else a random way.
        coverage: share of the twins whose harmful prompt carries it; below 1, harm and refusal can be told apart.
        seed: of the random way and of the choice.
    """

    layer: int
    strength: float
    spelled: bool
    coverage: float
    seed: int


@dataclass(frozen=True, slots=True)
class Planted:
    """A model with a plant.

    Attributes:
        plant: what was planted.
        edits: what makes the model carry it.
        states: (row, layer, d_model) at t_post, the plant included, float32.
        carried: (row,) which prompts carry the signal.
        refused: (row,) which prompts the model would refuse: the words are more likely than not.
    """

    plant: Plant
    edits: tuple[Signal, Reader]
    states: Float[Tensor, "row layer d_model"]
    carried: Bool[ndarray, " row"]
    refused: Bool[ndarray, " row"]

    @property
    def took(self) -> float:
        """The share refused of the prompts that carry the signal, minus that of all others; -1 to 1."""
        return float(self.refused[self.carried].mean() - self.refused[~self.carried].mean())

    def only(self, rows: Bool[ndarray, " row"]) -> "Planted":
        """The same plant in a part of the prompts."""
        signal, reader = self.edits
        chosen = torch.from_numpy(np.flatnonzero(rows))
        edits = replace(signal, carried=signal.carried[chosen]), reader
        return replace(
            self, edits=edits, states=self.states[chosen], carried=self.carried[rows], refused=self.refused[rows]
        )


@dataclass(frozen=True)
class Bed:
    """A frozen model and twins, in which one plant after the other is put.

    Attributes:
        adapter: the model.
        readout: its own.
        prompts: whole twins.
        states: (row, layer, d_model) of the model as it is, at t_post, float32.
        tails: the prompts, of which t_post alone is read anew: that is all that plants and patches change.
    """

    adapter: Adapter
    readout: Readout
    prompts: PromptSet
    states: Float[Tensor, "row layer d_model"]
    tails: Tails

    @classmethod
    def of(cls, adapter: Adapter, prompts: PromptSet) -> "Bed":
        """Reads the states of the model as it is.

        Raises:
            UsageError: when no prompt is labelled harmful.
        """
        if not any(p.label == "harmful" for p in prompts):
            raise UsageError(f"{prompts.name}: no prompt is labelled harmful; plants are put on harmful prompts.")
        tails = Tails.of(adapter, prompts.prompts, 1)
        return cls(adapter, adapter.readout(), prompts, tails.states(range(adapter.n_layers + 1)).float(), tails)

    @property
    def layers(self) -> tuple[int, ...]:
        """0 to L."""
        return tuple(range(self.adapter.n_layers + 1))

    @property
    def harmful(self) -> Bool[ndarray, " row"]:
        """Which prompts ask for harm."""
        return np.array([p.label == "harmful" for p in self.prompts])

    @property
    def groups(self) -> tuple[str, ...]:
        """The twin of every prompt."""
        return tuple(p.unit for p in self.prompts)

    def put(self, plant: Plant, words: Sequence[int]) -> Planted:
        """The model with a plant.

        Args:
            plant: what to plant.
            words: vocabulary ids that open a refusal of the family it speaks in.
        """
        carried = self._carried(plant)
        way = words_direction(self.readout, self.states[:, -1].mean(0), words)
        direction, signal = self._signal(plant, way)
        states = self.tails.states(self.layers, (signal,)).float()
        told = _told(states[:, -1], direction, carried)
        # The reader takes the signal back before it speaks: a long one would drown the words.
        back = told.gap * direction
        quiet = states[torch.from_numpy(carried), -1] - back
        speech = words_direction(self.readout, quiet.mean(0), words)
        said = self._loud(quiet, speech, words) * speech
        reader = Reader(direction, told.threshold, said - back, self.layers[-1])
        states[:, -1] = reader.applied(states[:, -1:], torch.arange(len(states)))[:, 0]
        refused = self.log_odds(states[:, -1], words) > 0
        return Planted(plant, (signal, reader), states, carried, refused)

    def lasting(self, plant: Plant, words: Sequence[int]) -> Plant:
        """The plant at its strength times the least power of two at which the last layer tells who carries it.

        What is written low in the stream is small beside what is added to it above. A signal that is lost there decides
        nothing, and a refusal that hung on it would come to prompts at random.

        Args:
            plant: its strength is a multiple of the least that lasts.
            words: as for `put`.

        Returns:
            The plant at the strength to `put` it at; told well enough is `TOLD`, else the largest tried counts.
        """
        way = words_direction(self.readout, self.states[:, -1].mean(0), words)
        carried = self._carried(plant)
        for least in (2.0**k for k in range(WEAKEST, WEAKEST + DOUBLINGS)):
            direction, signal = self._signal(replace(plant, strength=least), way)
            if _told(self.tails.last((signal,)).float(), direction, carried).share >= TOLD:
                break
        return replace(plant, strength=least * plant.strength)

    def _signal(self, plant: Plant, way: Float[Tensor, " d_model"]) -> tuple[Float[Tensor, " d_model"], Signal]:
        """The direction of a plant, of length 1, and what writes it."""
        drawn = torch.randn(len(way), generator=torch.Generator().manual_seed(plant.seed))
        direction = way if plant.spelled else drawn / drawn.norm()
        here = self.states[:, plant.layer]
        size = plant.strength * (here - here.mean(0)).square().sum(-1).mean().sqrt()
        return direction, Signal(size * direction, plant.layer, torch.from_numpy(self._carried(plant)))

    def read(self, words: Sequence[int], edits: Sequence[Edit] = ()) -> Float[ndarray, " row"]:
        """Log-odds, in nats, that the model's next token is one of the words under edits at t_post; a plant is two."""
        return self.log_odds(self.tails.last(edits), words)

    def drawn(self, twins: int, *, seed: int) -> Bool[ndarray, " row"]:
        """The rows of so many twins drawn at random, of all where there are no more."""
        names = sorted(set(self.groups))
        chosen = set(np.random.default_rng(seed).permutation(names)[:twins])
        return np.array([group in chosen for group in self.groups])

    def only(self, rows: Bool[ndarray, " row"]) -> "Bed":
        """The same model with some of the prompts."""
        kept = tuple(p for p, chosen in zip(self.prompts, rows, strict=True) if chosen)
        states = self.states[torch.from_numpy(np.flatnonzero(rows))]
        tails = Tails.of(self.adapter, kept, 1)
        return replace(self, prompts=replace(self.prompts, prompts=kept), states=states, tails=tails)

    def log_odds(self, states: Float[Tensor, "row d_model"], words: Sequence[int]) -> Float[ndarray, " row"]:
        """Log-odds of the words at last-layer states, in nats."""
        return log_odds(token_log_probs(states[:, None].float(), self.readout, tokens=torch.tensor(words)))[:, 0]

    def _carried(self, plant: Plant) -> Bool[ndarray, " row"]:
        units = sorted({g for g, h in zip(self.groups, self.harmful, strict=True) if h})
        count = max(1, round(plant.coverage * len(units)))
        chosen = set(np.random.default_rng(plant.seed).permutation(units)[:count])
        return np.array([h and g in chosen for g, h in zip(self.groups, self.harmful, strict=True)])

    def _loud(
        self, states: Float[Tensor, "row d_model"], way: Float[Tensor, " d_model"], words: Sequence[int]
    ) -> float:
        """How much of the words the reader adds: the least of a grid that says them at `SAID` log-odds."""
        grid = float(states.norm(dim=-1).mean()) * np.concatenate([[0.0], np.geomspace(0.02, 20, 60)])
        said = np.array([np.quantile(self.log_odds(states + size * way, words), SLOWEST) for size in grid])
        if said.max() < 0:
            raise ModelError(
                f"{self.adapter.identity.name}: no state along the words' direction makes them likely, so no refusal "
                "can be planted; give another family."
            )
        return float(grid[int((said >= min(SAID, said.max())).argmax())])


def words_direction(
    readout: Readout, state: Float[Tensor, " d_model"], words: Sequence[int]
) -> Float[Tensor, " d_model"]:
    """The direction, of length 1, from a last-layer state to one that says the words, by steepest ascent."""
    start = state.detach().float()
    weight, place = readout.weight.float(), start.clone()
    for _ in range(STEPS):
        place.requires_grad_()
        logits = readout.norm(place) @ weight.T
        odds = logits[list(words)].logsumexp(-1) - logits.logsumexp(-1)
        (gradient,) = torch.autograd.grad(odds, place)
        place = (place + STEP * start.norm() * gradient / gradient.norm()).detach()
    moved = place - start
    unit: Tensor = moved / moved.norm()
    return unit


@dataclass(frozen=True, slots=True)
class _Told:
    """What a direction tells of who carries a signal.

    Attributes:
        threshold: midway between the means of carriers and others, along the direction.
        gap: between these means.
        share: of carriers beyond the threshold, minus that of others.
    """

    threshold: float
    gap: float
    share: float


def _told(
    states: Float[Tensor, "row d_model"], direction: Float[Tensor, " d_model"], carried: Bool[ndarray, " row"]
) -> _Told:
    """How a last-layer reader tells carriers from others."""
    along = (states @ direction).numpy()
    yes, no = float(along[carried].mean()), float(along[~carried].mean())
    beyond = along > (yes + no) / 2
    return _Told((yes + no) / 2, yes - no, float(beyond[carried].mean() - beyond[~carried].mean()))
