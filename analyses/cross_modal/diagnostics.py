"""Every diagnostic of two arms at one place."""

from dataclasses import dataclass

import pandas as pd

from interp.geometry import (
    VARIANTS,
    Alignment,
    Arms,
    Profile,
    alignment,
    cka,
    layer_map,
    modality_gap,
    retrieval,
    subspace_overlap,
)
from interp.geometry.arms import FOLDS
from interp.geometry.profile import frame
from interp.geometry.subspace import DIMENSIONS
from interp.study import LAYERS_COLUMNS

MAIN = "centred"
"""The variant that sentences and claims rest on; all others must agree."""


@dataclass(frozen=True)
class Diagnosis:
    """What the diagnostics say of two arms.

    Attributes:
        place: where they were compared.
        arms: what was compared.
        alignments: by variant.
        map: of `interp.geometry.layer_map`, in the variant `MAIN`.
        similarity: CKA (raw, no_rogue).
        subspace: overlap, excess and ceiling of `interp.geometry.subspace_overlap`.
        gap: of `interp.geometry.modality_gap`.
        found: top-1 and MRR of retrieval, in the variant `MAIN`.
    """

    place: str
    arms: Arms
    alignments: dict[str, Alignment]
    map: pd.DataFrame
    similarity: tuple[Profile, ...]
    subspace: tuple[Profile, ...]
    gap: Profile
    found: tuple[Profile, ...]

    @property
    def main(self) -> Alignment:
        """In the variant `MAIN`."""
        return self.alignments[MAIN]

    def layers_table(self, group: str = "all pairs") -> pd.DataFrame:
        """Every profile in the columns of a ``layers`` table, with its floor."""
        profiles = (*self.similarity, *self.subspace, self.gap, *self.found)
        both = [*(a.frame() for a in self.alignments.values()), frame(profiles)]
        return layers_table(pd.concat(both, ignore_index=True), position=self.place, group=group)


def diagnose(arms: Arms, place: str, *, seed: int = 0) -> Diagnosis:
    """Runs every diagnostic; see `interp.geometry` for what each is and what is held out.

    Args:
        arms: at least `analyses.cross_modal.arms.FEWEST` concepts.
        place: name of the place, for tables.
        seed: of folds, bootstrap and permutations.
    """
    folds = min(FOLDS, len(arms.names) // 2)
    dimensions = max(1, min(DIMENSIONS, len(arms.names) // 4, arms.image.shape[-1] - 1))
    return Diagnosis(
        place=place,
        arms=arms,
        alignments={variant: alignment(arms, variant, folds=folds, seed=seed) for variant in VARIANTS},
        map=layer_map(arms, MAIN, folds=folds, seed=seed),
        similarity=tuple(cka(arms, variant, seed=seed) for variant in ("raw", "no_rogue")),
        subspace=subspace_overlap(arms, dimensions=dimensions, seed=seed),
        gap=modality_gap(arms, seed=seed),
        found=retrieval(arms, MAIN, folds=folds, seed=seed),
    )


def layers_table(rows: pd.DataFrame, *, position: str, group: str) -> pd.DataFrame:
    """Rows of profiles as rows of a ``layers`` table: the measure is the locator, the variant the family."""
    renamed = rows.rename(columns={"measure": "locator", "variant": "family"})
    return renamed.assign(position=position, group=group)[[*LAYERS_COLUMNS, "floor"]]
