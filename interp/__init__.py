"""Mechanistic interpretability of safety in language and vision-language models."""

__version__ = "0.1.0"
