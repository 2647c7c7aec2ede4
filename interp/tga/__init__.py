"""Text-guided alignment: retrieval, guide loss, gradient audit, projector files and the trainer.

Image states are moved towards the states of their caption and away from those of a retrieved text, layer by layer
(Text-Guided Alignment, TGA).
"""
