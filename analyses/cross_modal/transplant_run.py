"""The transplant map of a live model: its two arms, what is put into each, and the answers where it matters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count, product
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from analyses.cross_modal.completeness import Transplants
from analyses.cross_modal.ladder import judged as judged_answers
from analyses.cross_modal.questions import asked
from analyses.cross_modal.session import Session
from analyses.cross_modal.transfer import CAPTION, IMAGE
from analyses.cross_modal.transplant import (
    DIRECTIONS,
    OWN,
    SUFFICIENCY,
    TWIN,
    Arm,
    Plan,
    Sources,
    Spans,
    groups,
    measure,
    of_rows,
    reach,
)
from analyses.cross_modal.transplant_claims import Judged, span
from analyses.cross_modal.twinned import Twinned, twinned
from interp.causal import Patch, Resumable, answers, refusal_log_odds, states_at
from interp.models.adapter import Adapter
from interp.models.encoding import Encoder
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt

T = TypeVar("T")
JUDGED = (OWN, TWIN)
"""Whose states are put in where answers are judged."""


@dataclass(frozen=True)
class TransplantRun:
    """One session's transplants, with the openings in which refusal is read."""

    session: Session
    family: RefusalFamily

    @cached_property
    def rows(self) -> Twinned:
        """The pairs that are transplanted, no caption twice: patches tell prompts apart by what they ask."""
        most = self.session.effort.transplanted
        return twinned(self.session.pairs, most=most, seed=self.session.seed, distinct=True)

    def transplants(self) -> Transplants:
        """The map, measured or kept."""
        kept = self.session.arrays("transplants", self._measured, read=self.family.phrases)
        plan = self._plan(int(kept["n_layers"][0]))
        found = {direction: kept[direction] for direction in DIRECTIONS}
        return Transplants(plan, self.rows.units, kept[IMAGE], kept[CAPTION], found)

    def judged(self, found: Transplants) -> Judged:
        """The answers under transplants, judged: at one layer of every position, the middle of its span."""
        kept = self.session.json("transplant_answers", partial(self._answers, found), read=self.family.phrases)
        return {
            (one["direction"], one["position"], one["source"], one["layer"]): judged_answers(one["answers"])
            for one in kept
        }

    def _plan(self, n_layers: int) -> Plan:
        layers = spaced(range(n_layers), self.session.effort.layers)
        return Plan(layers, placebo_layers=spaced(layers, self.session.effort.placebo_layers), seed=self.session.seed)

    def _prompts(self, direction: str) -> tuple[Prompt, ...]:
        """Of the arm that is written into."""
        return asked(self.rows.harmful, IMAGE if direction == SUFFICIENCY else CAPTION, self.session.question)

    @cached_property
    def _arms(self) -> dict[tuple[str, str], Arm]:
        """Both arms of the harmful pairs and of their twins, as they run by themselves."""
        plan, found = self._plan(self.session.adapter.n_layers), {}
        for kind, pairs in (("harmful", self.rows.harmful), ("twins", self.rows.twins)):
            for name in (IMAGE, CAPTION):
                # A twin may stand beside several pairs, under one id.
                different = list(dict.fromkeys(pairs))
                prompts = asked(different, name, self.session.question)
                own = run_alone(self.session.adapter, prompts, plan.layers, self.session.effort.batch_size)
                place = [different.index(pair) for pair in pairs]
                found[kind, name] = Arm(tuple(own.spans[i] for i in place), own.states[place], own.layers)
        return found

    def _sources(self, direction: str) -> Sources:
        target, source = (IMAGE, CAPTION) if direction == SUFFICIENCY else (CAPTION, IMAGE)
        arms = self._arms
        return Sources(arms["harmful", target], arms["harmful", source], arms["twins", source], self.rows.units)

    def _read(self, direction: str, edit: Patch | None = None) -> Float[ndarray, " row"]:
        """Refusal log-odds of the arm that is written into."""
        adapter, size = self.session.adapter, self.session.effort.batch_size
        again = self._resumable[direction]
        if edit is not None and again is not None:
            shorter = last_changed(edit, self._sources(direction).target)
            return again.refusal_log_odds(shorter, self.family, batch_size=2 * size).numpy()

        def read(prompts: Sequence[Prompt], edits: Sequence[Patch]) -> list[float]:
            odds: list[float] = refusal_log_odds(adapter, prompts, [self.family], edits, batch_size=size).tolist()
            return odds

        return np.array(self._under(direction, edit, read))

    @cached_property
    def _resumable(self) -> dict[str, Resumable | None]:
        """The arms that are written into, where forwards of them can begin in the middle."""
        found = {}
        for direction in DIRECTIONS:
            target = self._sources(direction).target
            found[direction] = Resumable.of(
                self.session.adapter, self._prompts(direction), target.states, target.layers
            )
        return found

    def _answer(self, direction: str, edit: Patch | None = None) -> list[str]:
        """The answers of the arm that is written into."""
        effort = self.session.effort
        return self._under(
            direction,
            edit,
            lambda prompts, edits: answers(
                self.session.adapter, prompts, edits, tokens=effort.judged_tokens, batch_size=effort.batch_size
            ),
        )

    def _under(
        self, direction: str, edit: Patch | None, run: Callable[[Sequence[Prompt], Sequence[Patch]], list[T]]
    ) -> list[T]:
        """What a run gives of every row, the rows being run in groups that can be patched together."""
        prompts, spans = self._prompts(direction), self._sources(direction).target.spans
        found: dict[int, T] = {}
        for rows in [list(range(len(spans)))] if edit is None else groups(spans):
            chosen = [spans[row] for row in rows]
            edits = () if edit is None else (of_rows(edit, rows, reach(chosen)),)
            found |= dict(zip(rows, run([prompts[row] for row in rows], edits), strict=True))
        return [found[row] for row in range(len(spans))]

    def _measured(self) -> dict[str, ndarray]:
        session, plan = self.session, self._plan(self.session.adapter.n_layers)
        runs = sum(len(plan.runs(source)) for source in plan.sources) * len(plan.positions)
        session.notify(f"Transplanting {len(self.rows)} pairs, {2 * runs} times.")
        found: dict[str, ndarray] = {"n_layers": np.array([session.adapter.n_layers])}
        done = count(1)

        def step() -> None:
            session.progress(next(done), 2 * runs)

        for direction in DIRECTIONS:
            read = partial(self._read, direction)
            found[IMAGE if direction == SUFFICIENCY else CAPTION] = read()
            found[direction] = measure(read, self._sources(direction), plan, progress=step)
        return found

    def _answers(self, found: Transplants) -> list[dict[str, object]]:
        self.session.notify("Answering under transplants.")
        said: list[dict[str, object]] = []
        for direction in DIRECTIONS:
            same = {"direction": direction}
            said.append({**same, "position": "", "source": "", "layer": -1, "answers": self._answer(direction)})
            for position, source in product(found.plan.positions, JUDGED):
                layers = span(found, direction, position).layers
                layer = layers[len(layers) // 2]
                edit = self._sources(direction).edit(source, layer, position, found.plan)
                given = self._answer(direction, edit)
                said.append({**same, "position": position, "source": source, "layer": layer, "answers": given})
        return said


def last_changed(edit: Patch, target: Arm) -> Patch:
    """A patch at the last places alone, as far back as it changes anything; at one place at least."""
    own = target.states[:, target.layers.index(edit.layer)]
    changed = (edit.values != own).any(-1).any(0).nonzero()
    first = int(changed[0]) if len(changed) else len(edit.at) - 1
    return of_rows(edit, range(len(own)), len(edit.at) - first)


def run_alone(adapter: Adapter, prompts: Sequence[Prompt], layers: Sequence[int], batch_size: int) -> Arm:
    """An arm as it runs by itself."""
    spans = tuple(Spans.of(one) for one in Encoder(adapter.processor).encode(prompts, ["t_post"]))
    width = reach(spans)
    states = torch.zeros(len(prompts), len(layers), width, adapter.d_model)
    for rows in groups(spans):
        own = reach([spans[row] for row in rows])
        chosen = [prompts[row] for row in rows]
        read = states_at(adapter, chosen, layers, range(-own, 0), batch_size=batch_size)
        states = states.to(read.dtype)
        states[rows, :, width - own :] = read
    return Arm(spans, states, tuple(layers))


def spaced(layers: Sequence[int], most: int) -> tuple[int, ...]:
    """At most so many of some layers, evenly spaced, the first and the last among them."""
    if len(layers) <= most:
        return tuple(layers)
    return tuple(layers[i] for i in np.linspace(0, len(layers) - 1, most).round().astype(int))
