"""Interventions: the only place of the product that writes into a forward pass, beside placebos and side effects."""

from interp.causal.ascent import Ascent
from interp.causal.class_patch import ClassPatch, laid
from interp.causal.editing import editing
from interp.causal.edits import Ablation, Addition, Edit, Patch, SubspacePatch, displacement
from interp.causal.effects import (
    answers,
    encoded_prompts,
    refusal_log_odds,
    side_effects,
    states_at,
    states_of,
    token_ids,
)
from interp.causal.placebos import placebo, shuffled
from interp.causal.resuming import Resumable
from interp.causal.tails import Tails
from interp.causal.transplant import transplants
from interp.causal.trial import Intervention, trial

__all__ = [
    "Ablation",
    "Addition",
    "Ascent",
    "ClassPatch",
    "Edit",
    "Intervention",
    "Patch",
    "Resumable",
    "SubspacePatch",
    "Tails",
    "answers",
    "displacement",
    "editing",
    "encoded_prompts",
    "laid",
    "placebo",
    "refusal_log_odds",
    "shuffled",
    "side_effects",
    "states_at",
    "states_of",
    "token_ids",
    "transplants",
    "trial",
]
