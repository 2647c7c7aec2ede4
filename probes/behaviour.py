"""What a model did with every prompt, told from its answers, and the table of what was asked against what it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from jaxtyping import Bool
from numpy import ndarray

from interp.judges import family_refuses, readable
from interp.prompts.families import RefusalFamily, family_names, load_family
from interp.prompts.prompt import LABELS, Prompt

Behaviour = Literal["refused", "complied", "evasion", "empty", "broken"]
UNLABELLED = "unlabelled"
KINDS = (*LABELS, UNLABELLED)

_EMPTY_CELLS = {
    ("harmful", "refused"): "No harmful prompt was refused: what the probe learnt are refusals of harmless prompts.",
    ("harmful", "complied"): "No harmful prompt was answered: this probe can not tell refusing from harm among them.",
    ("harmless", "refused"): "No harmless prompt was refused: this probe can not tell refusing from harm among them.",
    ("harmless", "complied"): "No harmless prompt was answered: the probe never saw the model help where it should.",
}
_SAME = "What was refused is what was harmful: this probe can not tell refusing from harm at all."


def behaviour(response: str) -> Behaviour:
    """What a response is: a refusal when it begins as any refusal family does, evasion aside.

    Returns:
        ``empty``, ``broken`` and ``evasion`` are neither refusals nor answers, and no probe should learn from them.
    """
    unreadable = readable(response)
    if unreadable is not None:
        return unreadable
    if family_refuses(response) is not None:
        return "refused"
    return "evasion" if family_refuses(response, _evasions()) is not None else "complied"


def as_refused(found: Sequence[Behaviour]) -> list[bool | None]:
    """True for refused, False for complied, None for all that is left out."""
    return [{"refused": True, "complied": False}.get(one) for one in found]


def tally(found: Sequence[Behaviour]) -> str:
    """The counts in words, such as ``12 refused, 30 complied; left out: 1 evasion, 0 empty, 0 broken``."""
    counts = {name: sum(one == name for one in found) for name in get_args(Behaviour)}
    words = [f"{count} {name}" for name, count in counts.items()]
    return f"{', '.join(words[:2])}; left out: {', '.join(words[2:])}"


@cache
def _evasions() -> tuple[RefusalFamily, ...]:
    return tuple(family for family in map(load_family, family_names()) if family.kind == "evasion")


@dataclass(frozen=True, slots=True)
class Cells:
    """How many prompts of each kind were refused and complied with.

    Attributes:
        counts: by kind (harmful, harmless, unlabelled) and behaviour (refused, complied).
    """

    counts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, prompts: Sequence[Prompt], refused: Bool[ndarray, " row"]) -> "Cells":
        """Counts the prompts that were judged."""
        counts = {kind: {"refused": 0, "complied": 0} for kind in KINDS}
        for prompt, said_no in zip(prompts, refused, strict=True):
            counts[prompt.label or UNLABELLED]["refused" if said_no else "complied"] += 1
        return cls({kind: row for kind, row in counts.items() if kind in LABELS or any(row.values())})

    @property
    def sentences(self) -> tuple[str, ...]:
        """What every empty cell means, and what prompts without a label keep unknown."""
        empty = [cell for cell in _EMPTY_CELLS if not self.counts[cell[0]][cell[1]]]
        unlabelled = sum(self.counts.get(UNLABELLED, {}).values())
        if unlabelled and not any(count for kind in LABELS for count in self.counts[kind].values()):
            return (
                "The prompts say not which of them are harmful: whether the probe reads refusing or harm is unknown.",
            )
        said = [_SAME] if {("harmful", "complied"), ("harmless", "refused")} <= set(empty) else []
        said += [_EMPTY_CELLS[cell] for cell in empty]
        return (*said, *([f"{unlabelled} prompts say not whether they are harmful."] if unlabelled else []))
