"""Organisms: the demo model taught to refuse in a known way, each a small LoRA adapter with a training record."""

from interp.models.organisms.recipe import ORGANISMS, Recipe

__all__ = ["ORGANISMS", "Recipe"]
