"""Text-guided alignment: retrieval, guide loss, gradient audit, projector files and the trainer.

Image states are moved towards the states of their caption, layer by layer (Text-Guided Alignment, TGA). The retrieved
text decides how hard: the published loss holds it against the caption, not against the picture, and with both states
those of a frozen model its contrast is the same pull once more, weighed by 0 to 1; see `interp.tga.guide`.
"""
