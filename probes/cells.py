"""What was asked against what the model did: the four cells that tell a probe of refusal from one of harm."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from numpy import ndarray

from interp.prompts.prompt import LABELS, Prompt

UNLABELLED = "unlabelled"
KINDS = (*LABELS, UNLABELLED)

_EMPTY_CELLS = {
    ("harmful", "refused"): "No harmful prompt was refused: what the probe learnt are refusals of harmless prompts.",
    ("harmful", "complied"): "No harmful prompt was answered: this probe can not tell refusing from harm among them.",
    ("harmless", "refused"): "No harmless prompt was refused: this probe can not tell refusing from harm among them.",
    ("harmless", "complied"): "No harmless prompt was answered: the probe never saw the model help where it should.",
}
_SAME = "What was refused is what was harmful: this probe can not tell refusing from harm at all."


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
