"""A live vision-language model, its pairs, and the place where what is seen of it is kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from numpy import ndarray

from analyses.cross_modal.questions import QUESTION, asked
from analyses.cross_modal.transfer import ARMS
from interp.cache.derived import keep_arrays, keep_json, kept_arrays, kept_json
from interp.models.adapter import Adapter
from interp.prompts.pairs import Pair
from interp.prompts.prompt import Prompt, PromptSet
from interp.provenance import code_digest

WRITTEN_BY = (
    "interp.causal",
    "interp.models",
    "interp.lens",
    "interp.prompts",
    "interp.judges",
    "analyses.cross_modal",
)
"""The code that decides what is seen; what other code saw is looked at again."""
Arrays = dict[str, Shaped[ndarray, "..."]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. The defaults are what a small model does in a few minutes on two cores.

    Attributes:
        ladder: most harmful pairs on the ladder.
        transplanted: most harmful pairs that are transplanted, no caption twice.
        layers: most layers of the map.
        placebo_layers: most of them at which placebos are run.
        answer_tokens: most tokens of an answer; refusals are judged by how they begin, keywords stand near it.
        judged_tokens: most tokens of an answer under a transplant.
        batch_size: how many prompts run at once.
    """

    ladder: int = 40
    transplanted: int = 16
    layers: int = 10
    placebo_layers: int = 4
    answer_tokens: int = 20
    judged_tokens: int = 12
    batch_size: int = 32


@dataclass(frozen=True)
class Session:
    """What is asked, of which model, and where it is kept.

    Attributes:
        pairs: harmful pairs and their twins.
        folder: where what was seen is kept.
        run: what identifies the model.
        loaded: gives the model; called once, and not at all when everything is kept.
        question: the instruction of every prompt.
        effort: how much is measured.
        seed: of draws, strangers, noise and resamples.
        notify: told in one line what is happening.
        progress: called with (steps done, steps in all) of what takes long.
    """

    pairs: tuple[Pair, ...]
    folder: Path
    run: str
    loaded: Callable[[], Adapter]
    question: str = QUESTION
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    notify: Callable[[str], None] = lambda _: None
    progress: Callable[[int, int], None] = lambda *_: None

    @cached_property
    def adapter(self) -> Adapter:
        """The model."""
        return self.loaded()

    def prompts(self, arm: str) -> tuple[Prompt, ...]:
        """The prompts of an arm, one per pair."""
        return asked(self.pairs, arm, self.question)

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What decides everything that is seen: model, pictures and words, seed, code, and how much is measured."""
        return {
            "run": self.run,
            "prompts": {arm: PromptSet(arm, self.prompts(arm)).digest for arm in ARMS},
            "seed": self.seed,
            "effort": asdict(self.effort),
            "code": code_digest(*WRITTEN_BY),
        }

    def json(self, name: str, make: Callable[[], Any], *, read: Sequence[str] = ()) -> Any:
        """What is kept under a name, or what is made and kept now.

        Args:
            name: of what is seen.
            make: sees it.
            read: texts that it depends on beside the prompts, such as the openings in which refusal is read.
        """
        stamp = self._stamp(read)
        kept = kept_json(self.folder, name, stamp)
        if kept is None:
            kept = make()
            keep_json(self.folder, name, stamp, kept)
        return kept

    def arrays(self, name: str, make: Callable[[], Arrays], *, read: Sequence[str] = ()) -> Arrays:
        """As `json`, of arrays."""
        stamp = self._stamp(read)
        kept = kept_arrays(self.folder, name, stamp)
        if kept is None:
            kept = make()
            keep_arrays(self.folder, name, stamp, kept)
        return kept

    def _stamp(self, read: Sequence[str]) -> dict[str, Any]:
        return {**self.stamp, "read": list(read)} if read else self.stamp
