"""The ladder, the transplants and the transfer of safety as a part of a study: tables, figures, sentences, claims."""

from typing import Any

import pandas as pd

from analyses.cross_modal.causal_claims import content_claim, gap_claim
from analyses.cross_modal.causal_figures import DRAWN_FROM, drawn
from analyses.cross_modal.causal_words import NOTES, ladder_lines, placement_lines, transfer_lines
from analyses.cross_modal.completeness import arms_table, transplant_table
from analyses.cross_modal.ladder import moved_table, rung_table, step_table
from analyses.cross_modal.observation import Observed
from analyses.cross_modal.part import Part, composed
from analyses.cross_modal.placement import placement_table
from analyses.cross_modal.resampled import as_rows, rate_of
from analyses.cross_modal.transfer import kappa_table, transfer_table
from analyses.cross_modal.transplant_claims import Judged, sentences, transplant_claims
from interp.prompts.families import opening_text
from interp.scenes.catalogue import SYMBOLIC
from interp.study import Study


def part(
    seen: Observed, *, symbolic: tuple[str, ...] = SYMBOLIC, seed: int = 0, provenance: dict[str, Any] | None = None
) -> Part:
    """Makes a part of the study of what was seen.

    Args:
        seen: of a model.
        symbolic: scenes that pictures only show by a symbol.
        seed: of the bootstrap.
        provenance: what claims should carry: at least prompts, code and seed.

    Returns:
        Tables ``ladder``, ``ladder_steps``, ``ladder_moved``, ``transplants``, ``transplant_arms``,
        ``transplant_answers``, ``transfer``, ``kappas``, ``placements``, ``placed`` and ``thresholds``, their figures,
        and one claim per direction and position of the map beside those of ladder and transfer.
    """
    about = provenance or {}
    tables = {
        "ladder": rung_table(seen.ladder, seed=seed),
        "ladder_steps": step_table(seen.ladder, seed=seed),
        "ladder_moved": moved_table(seen.ladder, seed=seed),
        "transplants": transplant_table(seen.transplants),
        "transplant_arms": arms_table(seen.transplants),
        "transplant_answers": answers_table(seen.judged),
        "transfer": transfer_table(seen.answered, symbolic=symbolic, seed=seed),
        "kappas": kappa_table(seen.answered, seed=seed),
        "placements": placement_table(seen.placed["place"].tolist(), seen.placed["scene"].tolist(), symbolic=symbolic),
        "placed": seen.placed,
        "thresholds": pd.DataFrame(seen.thresholds.items(), columns=["what", "value"]),
    }
    openings = ", ".join(repr(opening_text(phrase)) for phrase in seen.family.phrases[:3])
    claims = (
        gap_claim(tables["transfer"], tables["kappas"], seen.placed, family=seen.family.name, provenance=about),
        content_claim(seen.ladder, family=seen.family.name, seed=seed, provenance=about),
        *transplant_claims(seen.transplants, seen.judged, family=seen.family.name, provenance=about),
    )
    return Part(
        tables=tables,
        figures=drawn(tables),
        sentences=(
            *transfer_lines(tables["transfer"], tables["kappas"]),
            *placement_lines(tables["placements"], seen.thresholds),
            *ladder_lines(tables["ladder"], tables["ladder_steps"]),
            *sentences(seen.transplants, claims),
        ),
        notes=(*NOTES, _read_in(seen, openings)),
        claims=claims,
        drawn_from=DRAWN_FROM,
    )


def run(
    seen: Observed,
    *,
    model: str,
    pairs: str,
    symbolic: tuple[str, ...] = SYMBOLIC,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> Study:
    """The `part` as a study of its own; ``model`` and ``pairs`` are their names, for the title."""
    made = part(seen, symbolic=symbolic, seed=seed, provenance=provenance)
    return composed([made], title=f"Does refusal hear the picture: {model} on {pairs}", about={})


def answers_table(judged: Judged) -> pd.DataFrame:
    """Judged refusal without and under transplants: direction, position, source, layer, value, lo, hi (Wilson), n."""
    rows = [as_rows(key, rate_of(refused)) for key, refused in judged.items()]
    return pd.DataFrame(rows, columns=["direction", "position", "source", "layer", "value", "lo", "hi", "n"])


def _read_in(seen: Observed, openings: str) -> str:
    if seen.refuses:
        return (
            f"Refusal log-odds are those of the openings with which this model refuses without a picture ({openings}), "
            "followed to their ends by teacher forcing, in nats."
        )
    return (
        "This model refused nothing without a picture, so there is no refusal that could reach pictures. Log-odds are "
        f"those of common openings ({openings}), followed to their ends by teacher forcing, in nats."
    )
