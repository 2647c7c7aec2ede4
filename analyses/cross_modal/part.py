"""A study put together from parts that each measure one thing and say what they found."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from interp.study import LAYERS_COLUMNS, Claim, Study

LAYERS = "layers"


@dataclass(frozen=True, slots=True)
class Part:
    """What one part adds to a study.

    Attributes:
        layers: rows of the study's ``layers`` table: `interp.study.LAYERS_COLUMNS` and floor; None for none.
        tables: other tables, by names that no other part uses.
        figures: plotly figures with captions, by names that no other part uses; a layer heatmap has "heatmap" in it.
        sentences: for a hurried reader.
        notes: what must be known to read the figures rightly.
        claims: for the ledger.
        drawn_from: by figure, the tables it shows.
    """

    layers: pd.DataFrame | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    drawn_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def composed(parts: Iterable[Part], *, title: str, about: Mapping[str, str]) -> Study:
    """The study of all parts, in their order; claims that failed are named after the sentences.

    Raises:
        ValueError: when two parts use one name for different things.
    """
    parts = list(parts)
    layers = [part.layers for part in parts if part.layers is not None]
    tables: dict[str, pd.DataFrame] = {}
    if layers:
        tables[LAYERS] = pd.concat(layers, ignore_index=True)[[*LAYERS_COLUMNS, "floor"]]
    figures: dict[str, tuple[Any, str]] = {}
    for part in parts:
        for names, found in ((tables, part.tables), (figures, part.figures)):
            twice = set(names) & set(found)
            if twice:
                raise ValueError(f"two parts of a study use the name {', '.join(sorted(twice))}")
            names.update(found)  # type: ignore[arg-type]
    claims = tuple(claim for part in parts for claim in part.claims)
    return Study(
        title=title,
        headlines=(*(line for part in parts for line in part.sentences), *_verdicts(claims)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        tables=tables,
        figures=figures,
        claims=claims,
        about=dict(about),
        drawn_from={name: shown for part in parts for name, shown in part.drawn_from.items()},
    )


def _verdicts(claims: tuple[Claim, ...]) -> tuple[str, ...]:
    made = [claim.statement for claim in claims if claim.established]
    failed = [
        f"{claim.locator} against {claim.family} at {claim.position} "
        f"(fails {', '.join(c.name for c in claim.controls if not c.passed)})"
        for claim in claims
        if not claim.established
    ]
    return (*made, f"Not established: {'; '.join(failed)}. See Claims.") if failed else tuple(made)
