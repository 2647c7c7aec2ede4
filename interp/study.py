"""The result of an analysis: tidy tables, figures, claims with their controls, and the sentences above them."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

LAYERS_COLUMNS = ("locator", "family", "position", "group", "layer", "value", "lo", "hi", "n")


@dataclass(frozen=True, slots=True)
class Control:
    """One test that a claim must pass.

    Attributes:
        name: such as specificity.
        passed: whether it did.
        found: what was measured, in words with numbers.
        needed: what would have passed.
    """

    name: str
    passed: bool
    found: str
    needed: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about layers that is printed only when every control passes.

    Attributes:
        statement: the sentence, as it reads when it holds.
        locator: what it rests on.
        family: refusal family.
        position: where in the prompt.
        onset: first layer, with the interval ``lo`` to ``hi``; None where there is none.
        lo: lower bound of the onset.
        hi: upper bound of the onset.
        n: how many prompts it rests on.
        controls: what was tested.
        provenance: data digest, run key, code digest, seed.
    """

    statement: str
    locator: str
    family: str
    position: str
    onset: float | None
    lo: float | None
    hi: float | None
    n: int
    controls: tuple[Control, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def established(self) -> bool:
        """Whether every control passed."""
        return all(c.passed for c in self.controls)

    @property
    def verdict(self) -> str:
        """The statement, or what keeps it from being made."""
        if self.established:
            return self.statement
        failed = ", ".join(f"{c.name} ({c.found}; needed {c.needed})" for c in self.controls if not c.passed)
        return f"Not established for {self.locator}: failed {failed}."

    def record(self) -> dict[str, Any]:
        """The claim as JSON values."""
        return {**asdict(self), "established": self.established, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Study:
    """What an analysis hands to the report.

    Attributes:
        title: one line.
        headlines: the sentences a hurried reader needs.
        notes: what the reader must know to read the figures rightly.
        tables: tidy frames by name; ``layers`` has the columns `LAYERS_COLUMNS`.
        figures: plotly figures by name, in reading order, each with a caption.
        claims: the ledger.
        about: model, prompts, run and settings, for the foot of the report.
    """

    title: str
    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, tuple[Any, str]]
    claims: tuple[Claim, ...]
    about: dict[str, str]

    def after(self, first: "Study") -> "Study":
        """One study with what the first says before what this one says, under the first one's title.

        Tables, figures and settings of the same name are those of the first.
        """
        return Study(
            title=first.title,
            headlines=(*first.headlines, *self.headlines),
            notes=(*first.notes, *self.notes),
            tables={**self.tables, **first.tables},
            figures={**first.figures, **{k: v for k, v in self.figures.items() if k not in first.figures}},
            claims=(*first.claims, *self.claims),
            about={**self.about, **first.about},
        )
