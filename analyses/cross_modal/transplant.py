"""The transplant map: the states of one arm put into the forward pass of the other, layer by layer and place by place.

The image arm asks about a picture, the caption arm asks the same with the caption in the picture's place. Sufficiency:
the caption run's states in the image run; do they restore the refusal that the caption gets? Necessity: the image run's
states in the caption run; is the refusal lost? Neither follows from the other.

Measured in log-odds of refusing, and as completeness: how much of the way from the run that is written into to the run
that is written from is gone, 1 for all of it. Beside every transplant placebos: the same states of the harmless twin,
of another pair of the same kind, of a wrong layer (in the right norm), and a push of the same size in a random
direction.

Where it fails: a transplanted state is one that the model never computed there; caption tokens are stretched over the
places of the image tokens, so that slots of different length are never exchanged exactly; and what lies above the
layer at places not written to still comes from the other run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.causal import Patch, laid, placebo
from interp.errors import ModelError, UsageError
from interp.models.encoding import Encoded

SUFFICIENCY, NECESSITY = "sufficiency", "necessity"
DIRECTIONS = (SUFFICIENCY, NECESSITY)
OWN, TWIN, STRANGER, NOISE, SHUFFLED = "own", "twin's", "another pair's", "noise of equal norm", "shuffled layer"
SOURCES = (OWN, TWIN, STRANGER, NOISE, SHUFFLED)
"""Whose states are put in; all but the first are placebos."""
SLOT, INSTRUCTION, LAST, ALL = "slot", "instruction", "t_post", "all"
POSITIONS = (SLOT, INSTRUCTION, LAST, ALL)
WHERE = {
    SLOT: "the image tokens, or the caption's in their place",
    INSTRUCTION: "the instruction",
    LAST: "the last token before the answer",
    ALL: "everything from the slot to the end",
}

Read = Callable[[Patch], Float[ndarray, " row"]]
"""Refusal log-odds, in nats, of the prompts of one arm under a patch whose rows are these."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the parts of a prompt lie.

    Attributes:
        length: tokens of the prompt.
        slot: token indices of the image or the caption, in order.
        instruction: token indices of the instruction, behind the slot.
    """

    length: int
    slot: tuple[int, ...]
    instruction: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.slot or not self.instruction or self.slot[-1] >= self.instruction[0]:
            raise UsageError(
                f"slot {self.slot}, instruction {self.instruction}: a transplant needs both, the slot standing first."
            )

    @classmethod
    def of(cls, encoded: Encoded) -> "Spans":
        """The parts of an encoded prompt with a picture or a caption in its slot."""
        slot = encoded.of_class("image") or encoded.of_class("caption")
        return cls(encoded.at["t_post"] + 1, slot, encoded.of_class("instruction"))

    def parts(self, position: str) -> tuple[tuple[int, ...], ...]:
        """The places of a position, counted from the end of the prompt (-1 is t_post), in order, part by part.

        The places of the last part are as many in every arm; those of others may differ.
        """
        between = tuple(range(self.slot[-1] + 1, self.instruction[0]))
        chosen: Mapping[str, tuple[Sequence[int], ...]] = {
            SLOT: (self.slot, ()),
            INSTRUCTION: (self.instruction,),
            LAST: ((self.length - 1,),),
            ALL: (self.slot, between, range(self.instruction[0], self.length)),
        }
        return tuple(tuple(i - self.length for i in part) for part in chosen[position])


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One arm as it runs by itself.

    Attributes:
        spans: of every prompt.
        states: (row, layer, place, d_model) of the last tokens of every prompt, from the start of the farthest slot
            on; places before the start of a prompt hold zeros.
        layers: of ``states``, ascending.
    """

    spans: tuple[Spans, ...]
    states: Float[Tensor, "row layer place d_model"]
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        width = self.states.shape[2]
        if width < reach(self.spans):
            raise UsageError(f"the last {width} tokens do not reach back to every slot; give states of more places.")

    @property
    def at(self) -> tuple[int, ...]:
        """The places of ``states``, counted from the end."""
        return tuple(range(-self.states.shape[2], 0))


def reach(spans: Sequence[Spans]) -> int:
    """How many tokens lie between the start of a prompt's slot and its end, at most."""
    return max(span.length - span.slot[0] for span in spans)


def groups(spans: Sequence[Spans]) -> list[list[int]]:
    """Rows that can be patched together: no prompt of a group is shorter than another is from its slot on.

    Places are counted from the end, the same for all rows of a patch; one before the start of a prompt is no place.
    """
    found: list[list[int]] = []
    for row in sorted(range(len(spans)), key=lambda row: spans[row].length):
        span = spans[row]
        if found and span.length - span.slot[0] <= spans[found[-1][0]].length:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def of_rows(edit: Patch, rows: Sequence[int], places: int) -> Patch:
    """The part of a patch that some rows get, at their last places."""
    return Patch(edit.values[list(rows), -places:], edit.layer, edit.at[-places:])


def transplanted(
    target: Arm, source: Arm, rows: Int[ndarray, " row"], layer: int, position: str, *, of_layer: int | None = None
) -> Patch:
    """The patch that puts the source's states into the target's run.

    Args:
        target: the arm that is written into.
        source: the arm that is written from.
        rows: which of its rows every row of the target gets.
        layer: where, one of the layers of both.
        position: one of `POSITIONS`.
        of_layer: the layer that the states come from; every state is then brought to the norm of the one of ``layer``.

    Returns:
        A patch at all places of `Arm.at`; where the position has none it holds the target's own states.

    Raises:
        ModelError: when the instruction and what follows it have another number of tokens in the other arm.
    """
    i = target.layers.index(layer)
    values = target.states[:, i].clone()
    for row, other in enumerate(rows.tolist()):
        states = _source_states(source, other, layer, of_layer)
        *stretched, last = zip(target.spans[row].parts(position), source.spans[other].parts(position), strict=True)
        if len(last[0]) != len(last[1]):
            raise ModelError(
                f"row {row}: the instruction and what follows it have {len(last[0])} tokens in one arm, {len(last[1])} "
                "in the other; both must ask the same question under the same template."
            )
        for here, there in (*stretched, last):
            if here and there:
                values[row, list(here)] = laid(states[list(there)], len(here))
    return Patch(values, layer, target.at)


def _source_states(source: Arm, row: int, layer: int, of_layer: int | None) -> Float[Tensor, "place d_model"]:
    own = source.states[row, source.layers.index(layer)]
    return own if of_layer is None else _as_long(source.states[row, source.layers.index(of_layer)], own)


def _as_long(states: Float[Tensor, "place d_model"], as_these: Float[Tensor, "place d_model"]) -> Tensor:
    """The states, each as long as the other at its place."""
    length = as_these.float().norm(dim=-1, keepdim=True) / states.float().norm(dim=-1, keepdim=True).clamp(min=1e-30)
    scaled: Tensor = (states.float() * length).to(states)
    return scaled


@dataclass(frozen=True, slots=True)
class Plan:
    """What is transplanted where.

    Attributes:
        layers: of the map.
        positions: some of `POSITIONS`.
        sources: some of `SOURCES`.
        placebo_layers: those of the layers at which placebos are run too.
        seed: of strangers, noise and shuffled layers.
    """

    layers: tuple[int, ...]
    positions: tuple[str, ...] = POSITIONS
    sources: tuple[str, ...] = SOURCES
    placebo_layers: tuple[int, ...] = ()
    seed: int = 0

    def runs(self, source: str) -> tuple[int, ...]:
        """The layers at which a source is run."""
        return self.layers if source == OWN else self.placebo_layers

    @property
    def shuffled_layers(self) -> dict[int, int]:
        """For every layer another one, each once: one cycle through all in random order."""
        order = np.random.default_rng(self.seed).permutation(self.layers)
        return dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """What is put into one arm.

    Attributes:
        target: the arm that is written into.
        own: the other arm of the same pairs, row by row.
        twins: the other arm of their harmless twins, row by row.
        units: the concept of every row; a stranger has another one.
    """

    target: Arm
    own: Arm
    twins: Arm
    units: tuple[str, ...]

    def strangers(self, seed: int) -> Int[ndarray, " row"]:
        """For every row one of another concept, drawn at random.

        Raises:
            UsageError: when there is one concept only.
        """
        rng, units = np.random.default_rng(seed), np.array(self.units)
        others = [np.flatnonzero(units != unit) for unit in self.units]
        if not all(map(len, others)):
            raise UsageError("all pairs are of one concept, so none has a stranger; give pairs of more concepts.")
        return np.array([rng.choice(rows) for rows in others])

    def edit(self, name: str, layer: int, position: str, plan: Plan) -> Patch:
        """The patch of one source at one layer and position."""
        same = np.arange(len(self.units))
        if name == TWIN:
            return transplanted(self.target, self.twins, same, layer, position)
        if name == STRANGER:
            return transplanted(self.target, self.own, self.strangers(plan.seed), layer, position)
        if name == SHUFFLED:
            other = plan.shuffled_layers[layer]
            return transplanted(self.target, self.own, same, layer, position, of_layer=other)
        real = transplanted(self.target, self.own, same, layer, position)
        if name == OWN:
            return real
        own = self.target.states[:, self.target.layers.index(layer)]
        return cast(Patch, placebo(real, plan.seed + layer, states=own))


def measure(
    read: Read, sources: Sources, plan: Plan, *, progress: Callable[[], None] = lambda: None
) -> Float[ndarray, "source position row layer"]:
    """Refusal log-odds under every transplant of one direction, in nats; NaN where none was run.

    Args:
        read: of the target's prompts.
        sources: what is put in.
        plan: where.
        progress: called after every transplant.
    """
    shape = (len(plan.sources), len(plan.positions), len(sources.units), len(plan.layers))
    found = np.full(shape, np.nan)
    for s, name in enumerate(plan.sources):
        for p, position in enumerate(plan.positions):
            for layer in plan.runs(name):
                edit = sources.edit(name, layer, position, plan)
                found[s, p, :, plan.layers.index(layer)] = read(edit)
                progress()
    return found
