"""The projector of the demo vision-language model: trained to name pictures, tower and language model frozen."""

from interp.models.projector.recipe import RECIPES, ProjectorRecipe

__all__ = ["RECIPES", "ProjectorRecipe"]
