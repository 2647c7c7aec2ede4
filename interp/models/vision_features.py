"""What the vision tower of a LLaVA-class model gives its projector, picture by picture."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.models.adapter import Batch
from interp.models.anatomy import StopForward, first_tensor, watching
from interp.models.encoding import Encoded
from interp.models.pictures import Picture, picture_inputs
from interp.models.projected import IGNORED, ProjectedModel, Rows, projector_of

CLOSE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest distance, as a share of the state's length, that is rounding."""


@torch.no_grad()
def vision_features(model: Any, pictures: Sequence[Picture]) -> Float[Tensor, "picture patch feature"]:
    """Runs the vision tower.

    Args:
        model: of transformers, with a projector.
        pictures: as the processor reads them.

    Returns:
        What the projector is called with, compute dtype, on the CPU.

    Raises:
        ModelError: when the projector is called with anything but one row per picture.
    """
    projector = projector_of(model)
    seen: list[Tensor] = []
    none = torch.zeros(len(pictures), 1, dtype=torch.long)
    inputs = picture_inputs(model, pictures, none, none)
    known = inspect.signature(model.base_model.get_image_features).parameters

    def take(args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        seen.append(first_tensor(args, kwargs).cpu())
        raise StopForward

    try:
        with watching([(projector, take)]):
            model.base_model.get_image_features(**{k: v for k, v in inputs.items() if k in known})
    except StopForward:
        pass
    if len(seen) != 1 or seen[0].ndim != 3 or len(seen[0]) != len(pictures):
        shapes = [tuple(x.shape) for x in seen]
        raise ModelError(
            f"{type(model).__name__}: its projector reads {shapes} for {len(pictures)} pictures; only models that "
            "project one row of patches per picture can be trained on cached features."
        )
    return seen[0]


@torch.no_grad()
def require_same_reading(adapter: Any, encoded: Encoded, features: Float[Tensor, "1 patch feature"]) -> None:
    """Checks on one picture that the model reads cached features as it reads the picture.

    Args:
        adapter: of the model.
        encoded: a prompt with a picture, with the position t_post.
        features: what `vision_features` gave for it.

    Raises:
        ModelError: when the last states differ by more than rounding: the model does something else with pictures than
            to put projected features in the place of its image tokens.
    """
    ids = torch.tensor([encoded.ids])
    batch = Batch(ids, torch.ones_like(ids), torch.tensor([[encoded.at["t_post"]]]), 0, {}, (encoded.picture,))
    expected = adapter.states(batch, [adapter.n_layers])[0, 0, 0].float()
    image = torch.zeros_like(ids).bool()
    image[0, list(encoded.of_class("image"))] = True
    targets = torch.full_like(ids, IGNORED)
    targets[0, -1] = 0
    reads = ProjectedModel(adapter.model)
    try:
        parts = [part.to(reads.device) for part in (ids, torch.ones_like(ids), image, targets, features)]
        seen = reads.run(Rows(parts[0], parts[1], parts[2], parts[3], parts[4]), [adapter.n_layers])
    finally:
        reads.release()
    found = seen.states[adapter.n_layers][0, encoded.at["t_post"]].float().cpu()
    away = float((found - expected).norm() / expected.norm())
    if not away <= CLOSE[next(adapter.model.get_decoder().parameters()).dtype]:
        raise ModelError(
            f"{type(adapter.model).__name__}: reads cached features otherwise than the picture itself (its last state "
            f"is off by {away:.1%}); only LLaVA-class models can be trained on them."
        )
