"""The losses of a few pictures: one forward pass of projector and language model, text states from the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.projected import ProjectedModel, Rows, Seen
from interp.tga.guide import States, guide_loss, masked_mean
from interp.tga.samples import Sample, TrainingSet
from interp.tga.variants import Variant


@dataclass(frozen=True, slots=True)
class Centre:
    """What a centred guide takes off.

    Attributes:
        image: (layer, d_model) mean of image states.
        text: (layer, d_model) mean of caption states.
    """

    image: Float[Tensor, "layer d_model"]
    text: Float[Tensor, "layer d_model"]


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over a few pictures, so that those of several micro-batches can be added up.

    Attributes:
        language: cross-entropy in nats, summed over the tokens of all captions to be written.
        guide: guide loss, summed over the guided pictures.
        tokens: how many tokens.
        pictures: how many guided pictures.
        image_caption: (layer,) cos(I, C) summed over the guided pictures, no gradient.
        retrieved_caption: (layer,) cos(R, C) likewise.
        image_sum: (layer, d_model) sum of their image states before centring, no gradient.
    """

    language: Float[Tensor, ""]
    guide: Float[Tensor, ""]
    tokens: int
    pictures: int
    image_caption: Float[Tensor, " layer"]
    retrieved_caption: Float[Tensor, " layer"]
    image_sum: Float[Tensor, "layer d_model"]


def losses_of(
    model: ProjectedModel,
    data: TrainingSet,
    samples: Sequence[Sample],
    variant: Variant,
    layers: Sequence[int],
    *,
    done: float = 0.0,
    centre: Centre | None = None,
) -> Losses:
    """Runs a few pictures through the model.

    Args:
        model: projector and language model.
        data: where features and text states are read.
        samples: the pictures, at least one.
        variant: which guide.
        layers: at which it looks; none reads no text states.
        done: share of training done, 0 to 1.
        centre: the means to take off, where the variant is centred.
    """
    rows = data.rows(samples, model.device)
    seen = model.run(rows, layers)
    guided = [i for i, sample in enumerate(samples) if sample.guided]
    if not layers or not guided:
        zero = seen.losses.new_zeros(())
        nothing = torch.zeros(len(layers), device=model.device)
        sums = torch.zeros(len(layers), model.d_model, device=model.device)
        return Losses(seen.losses.sum(), zero, len(seen.losses), 0, nothing, nothing, sums)
    image = image_states(seen, rows, layers, guided)
    caption, retrieved = (
        data.text_states([getattr(samples[i], what) for i in guided], layers, model.device)
        for what in ("caption", "retrieved")
    )
    sums = image.detach().sum(0)
    if centre is not None:
        image, caption, retrieved = image - centre.image, caption - centre.text, retrieved - centre.text
    guide, n = guide_loss(image, caption, retrieved, variant, done=done), len(guided)
    cosines = guide.image_caption * n, guide.retrieved_caption * n
    return Losses(seen.losses.sum(), guide.loss * n, len(seen.losses), n, *cosines, sums)


def image_states(seen: Seen, rows: Rows, layers: Sequence[int], chosen: Sequence[int]) -> States:
    """I_j: the mean of the states of some rows over the tokens of their picture, float32."""
    behind = next(iter(seen.states.values())).shape[1]
    there = rows.image[chosen, -behind:]
    return torch.stack([masked_mean(seen.states[layer][chosen], there) for layer in layers], dim=1)
