"""The geometry of two arms, picture and caption: no number without what unrelated pairs give."""

from interp.geometry.alignment import Alignment, alignment
from interp.geometry.arms import Arms
from interp.geometry.cka import cka
from interp.geometry.drift import Drift, drift
from interp.geometry.gap import modality_gap
from interp.geometry.layer_map import layer_map
from interp.geometry.profile import Profile, frame
from interp.geometry.retrieval import retrieval
from interp.geometry.subspace import subspace_overlap
from interp.geometry.variants import VARIANTS

__all__ = [
    "VARIANTS",
    "Alignment",
    "Arms",
    "Drift",
    "Profile",
    "alignment",
    "cka",
    "drift",
    "frame",
    "layer_map",
    "modality_gap",
    "retrieval",
    "subspace_overlap",
]
