"""What is measured on the validation pictures while a projector is trained; nothing here changes a bit of it."""

import math
from dataclasses import dataclass

import torch

from interp.models.projected import ProjectedModel
from interp.tga.losses import losses_of
from interp.tga.processes import Processes
from interp.tga.samples import TrainingSet
from interp.tga.variants import PAPER


@dataclass(frozen=True, slots=True)
class Validation:
    """One measurement.

    Attributes:
        loss: cross-entropy in nats per token of the captions; NaN without captioned validation pictures.
        layers: rows of step, layer, cos(I, C), cos(R, C) and how many pictures; none without text states.
    """

    loss: float
    layers: list[dict[str, float | int]]


@torch.no_grad()
def measure(model: ProjectedModel, data: TrainingSet, step: int, batch: int, processes: Processes) -> Validation:
    """Measures validation loss and alignment, raw cosines at every layer that text states are stored of.

    Args:
        model: as it is now.
        data: with or without validation pictures and text states.
        step: how many updates were made, for the rows.
        batch: pictures run together.
        processes: that share the work.
    """
    layers = () if data.texts is None else tuple(x for x in data.texts.layers if x <= model.n_layers)
    sums = torch.zeros(3 + 2 * len(layers), dtype=torch.float64, device=model.device)
    mine = data.validation[processes.rank :: processes.count]
    for start in range(0, len(mine), batch):
        found = losses_of(model, data, mine[start : start + batch], PAPER, layers)
        counts = torch.tensor([float(found.tokens), float(found.pictures)], device=model.device)
        parts = [found.language[None], counts, found.image_caption, found.retrieved_caption]
        sums += torch.cat([part.double() for part in parts])
    language, tokens, pictures, *cosines = processes.total(sums).tolist()
    loss = language / tokens if tokens else math.nan
    if not pictures:
        return Validation(loss, [])
    pairs = zip(layers, cosines[: len(layers)], cosines[len(layers) :], strict=True)
    return Validation(
        loss,
        [
            {
                "step": step,
                "layer": j,
                "image_caption": ic / pictures,
                "retrieved_caption": rc / pictures,
                "n": pictures,
            }
            for j, ic, rc in pairs
        ],
    )
