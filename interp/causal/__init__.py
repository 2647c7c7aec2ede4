"""Interventions: the only place of the product that writes into a forward pass, beside placebos and side effects."""

from interp.causal.editing import editing
from interp.causal.edits import Ablation, Addition, Edit, Patch, SubspacePatch, displacement
from interp.causal.effects import answers, refusal_log_odds, side_effects, states_at, token_ids
from interp.causal.placebos import placebo, shuffled
from interp.causal.tails import Tails
from interp.causal.trial import Intervention, trial

__all__ = [
    "Ablation",
    "Addition",
    "Edit",
    "Intervention",
    "Patch",
    "SubspacePatch",
    "Tails",
    "answers",
    "displacement",
    "editing",
    "placebo",
    "refusal_log_odds",
    "shuffled",
    "side_effects",
    "states_at",
    "token_ids",
    "trial",
]
