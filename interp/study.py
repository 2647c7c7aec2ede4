"""The result of an analysis: tidy tables, figures, claims with their controls, and the sentences above them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

LAYERS_COLUMNS = ("locator", "family", "position", "group", "layer", "value", "lo", "hi", "n")
ORIGIN = {"data_digest": "prompts", "code_version": "code", "seed": "seed"}
"""What every claim must say of where it comes from: the field of its record, and the key of its provenance."""


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
        provenance: at least ``prompts`` (their digest), ``code`` (digest of the product) and ``seed``; and whatever
            else decided it, such as the run key.
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
    def span(self) -> tuple[float, float] | None:
        """The interval of the onset, with inf for "never"; None for a claim that names no onset at all."""
        if self.onset is None and self.lo is None and self.hi is None:
            return None
        lo, hi = (math.inf if end is None else end for end in (self.lo, self.hi))
        return lo, hi

    @property
    def verdict(self) -> str:
        """The statement, or what keeps it from being made."""
        if self.established:
            return self.statement
        failed = ", ".join(f"{c.name} ({c.found}; needed {c.needed})" for c in self.controls if not c.passed)
        return f"Not established for {self.locator} at {self.position}: failed {failed}."

    def record(self) -> dict[str, Any]:
        """The claim as JSON values, as the ledger keeps it; a bound that is no finite number is None.

        Raises:
            ValueError: when the provenance lacks one of `ORIGIN`.
        """
        missing = [key for key in ORIGIN.values() if self.provenance.get(key) is None]
        if missing:
            raise ValueError(f"the claim of {self.locator} does not say its {', '.join(missing)}; add to provenance.")
        onset, lo, hi = (v if v is not None and math.isfinite(v) else None for v in (self.onset, self.lo, self.hi))
        return {
            "statement": self.statement,
            "established": self.established,
            "verdict": self.verdict,
            "locator": self.locator,
            "family": self.family,
            "position": self.position,
            "onset": onset,
            "interval": [lo, hi],
            "n": self.n,
            "controls": [asdict(control) for control in self.controls],
            **{name: self.provenance[key] for name, key in ORIGIN.items()},
            "provenance": self.provenance,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Claim":
        """The claim of which this is the `record`.

        Raises:
            KeyError, TypeError, ValueError: for a record of another form, or one whose fields contradict each other.
        """
        lo, hi = record["interval"]
        plain = {k: record[k] for k in ("statement", "locator", "family", "position", "onset", "n", "provenance")}
        claim = cls(**plain, lo=lo, hi=hi, controls=tuple(Control(**c) for c in record["controls"]))
        if claim.record() != record:
            raise ValueError("its fields contradict each other")
        return claim


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
        about: model, prompts, run and settings, for the foot of the report and for `interp.comparison`.
        drawn_from: by name of a figure, the names of the tables it shows; the report puts them one click away.
    """

    title: str
    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, tuple[Any, str]]
    claims: tuple[Claim, ...]
    about: dict[str, str]
    drawn_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
            drawn_from={**self.drawn_from, **first.drawn_from},
        )


def ranges(layers: Sequence[int]) -> str:
    """Ascending layers in words, such as ``0-3, 7``; empty for none."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], layer]
        else:
            parts.append([layer, layer])
    return ", ".join(str(lo) if lo == hi else f"{lo}-{hi}" for lo, hi in parts)
