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
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from analyses.readings import log_odds
from interp.causal import Edit, Tails
from interp.errors import ModelError, UsageError
from interp.lens import Readout, token_log_probs
from interp.models.adapter import Adapter
from interp.prompts.prompt import PromptSet

LAST = (-1,)
STEPS, STEP = 40, 0.1
"""Of the ascent to the words, in norms of the state it begins at."""
SAID, SLOWEST = 2.0, 0.1
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


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """Adds a vector to the states of some prompts.

    Attributes:
        vector: (d_model) in the unit of the states.
        layer: where.
        carried: (row,) by which prompts.
        at: t_post.
    """

    vector: Float[Tensor, " d_model"]
    layer: int
    carried: Bool[Tensor, " row"]
    at: tuple[int, ...] = LAST

    @property
    def width(self) -> int:
        """d_model of the states."""
        return len(self.vector)

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The layer it is written at."""
        return (self.layer,)

    def applied(
        self, states: Float[Tensor, "row place d_model"], rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row place d_model"]:
        """The states with the signal."""
        carried = self.carried.to(rows.device)[rows].to(states.device)
        return torch.where(carried[:, None, None], states + self.vector.to(states), states)


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Adds the words to every state beyond a threshold along a direction.

    Attributes:
        direction: (d_model) of length 1.
        threshold: in the unit of the states.
        words: (d_model) what is added.
        layer: where.
        at: t_post.
    """

    direction: Float[Tensor, " d_model"]
    threshold: float
    words: Float[Tensor, " d_model"]
    layer: int
    at: tuple[int, ...] = LAST

    @property
    def width(self) -> int:
        """d_model of the states."""
        return len(self.direction)

    def at_layers(self, n_layers: int) -> tuple[int, ...]:  # noqa: ARG002
        """The layer it reads and writes at."""
        return (self.layer,)

    def applied(
        self,
        states: Float[Tensor, "row place d_model"],
        rows: Int[Tensor, " row"],  # noqa: ARG002
    ) -> Float[Tensor, "row place d_model"]:
        """The states with the words where the signal is read."""
        seen = states.float() @ self.direction.to(states.device).float() > self.threshold
        return torch.where(seen[..., None], states + self.words.to(states), states)


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
    edits: tuple["Signal", "Reader"]
    states: Float[Tensor, "row layer d_model"]
    carried: Bool[ndarray, " row"]
    refused: Bool[ndarray, " row"]

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
        drawn = torch.randn(len(way), generator=torch.Generator().manual_seed(plant.seed))
        direction = way if plant.spelled else drawn / drawn.norm()
        here = self.states[:, plant.layer]
        size = plant.strength * (here - here.mean(0)).square().sum(-1).mean().sqrt()
        signal = Signal(size * direction, plant.layer, torch.from_numpy(carried))
        states = self.tails.states(self.layers, (signal,)).float()
        along = (states[:, -1] @ direction).numpy()
        threshold = float(along[carried].mean() + along[~carried].mean()) / 2
        loud = self._loud(states[torch.from_numpy(carried), -1], way, words)
        reader = Reader(direction, threshold, loud * way, self.layers[-1])
        states[:, -1] = reader.applied(states[:, -1:], torch.arange(len(states)))[:, 0]
        refused = self.log_odds(states[:, -1], words) > 0
        return Planted(plant, (signal, reader), states, carried, refused)

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
