"""The guide loss of text-guided alignment, in float32 whatever the model computes in.

For a picture with image states I_j, caption states C_j and states R_j of a retrieved text at layer j (means over the
tokens of each) the paper's loss is

    sum over j of  -cos(I_j, C_j) + log(1 + exp(-(cos(I_j, C_j) - cos(R_j, C_j))))

and the released code's, with t the share of training done,

    mean over j of  0.25 (1 - t) exp(-cos(I_j, C_j)) + 0.1 (1 - t)^2 exp(cos(R_j, C_j) - cos(I_j, C_j))

Both are averaged over the pictures of a batch. C_j and R_j are states of a frozen model, so that cos(R_j, C_j) is a
number no picture changes: the slope of the paper's loss along x = cos(I_j, C_j) is -1 - sigmoid(cos(R_j, C_j) - x). The
retrieved text makes the pull towards the caption up to twice as hard, and is itself neither neared nor fled.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from interp.tga.variants import Variant

States = Float[Tensor, "picture layer d_model"]


@dataclass(frozen=True, slots=True)
class Guide:
    """The guide loss of one batch and what it is made of.

    Attributes:
        loss: scalar; without gradient for a variant that has none.
        image_caption: (layer,) cos(I, C), mean over the batch, in [-1, 1]; no gradient.
        retrieved_caption: (layer,) cos(R, C) likewise.
    """

    loss: Float[Tensor, ""]
    image_caption: Float[Tensor, " layer"]
    retrieved_caption: Float[Tensor, " layer"]


def guide_loss(image: States, caption: States, retrieved: States, variant: Variant, *, done: float = 0.0) -> Guide:
    """The guide loss of a batch; centring, where the variant asks for it, has happened before.

    Args:
        image: (picture, layer, d_model) any dtype, I_j.
        caption: (picture, layer, d_model) any dtype, C_j.
        retrieved: (picture, layer, d_model) any dtype, R_j.
        variant: which loss; see `interp.tga.variants`.
        done: share of training done, 0 to 1, for a variant that decays.

    Returns:
        The loss. In softplus form it lies in [-0.874, 3.13] per layer; a zero vector, which has no direction, counts as
        cosine 0 and gets no gradient. Without a guide the loss is 0.
    """
    to_image, to_retrieved = cosine(image, caption), cosine(retrieved, caption)
    if variant.form == "none":
        per_layer = torch.zeros_like(to_image)
    elif variant.form == "softplus":
        per_layer = -variant.pair_weight * to_image + variant.contrast_weight * F.softplus(to_retrieved - to_image)
    else:
        left = 1 - done if variant.decays else 1.0
        pair = variant.pair_weight * left * torch.exp(-to_image)
        per_layer = pair + variant.contrast_weight * left**2 * torch.exp(to_retrieved - to_image)
    over_layers = per_layer.mean(-1) if variant.mean_over_layers else per_layer.sum(-1)
    loss = variant.weight * over_layers.mean()
    # The released code's math.exp gives a plain number.
    loss = loss if variant.has_gradient else loss.detach()
    return Guide(loss, to_image.detach().mean(0), to_retrieved.detach().mean(0))


def cosine(a: Float[Tensor, "*rest d"], b: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest"]:
    """The cosine of the last axis, in float32 at least; 0, with gradient 0, where either vector is zero.

    Args:
        a: any dtype; float64 is kept, everything else becomes float32.
        b: likewise.

    Returns:
        In [-1, 1].
    """
    a, b = _wide(a), _wide(b)
    squares = (a * a).sum(-1), (b * b).sum(-1)
    zero = (squares[0] == 0) | (squares[1] == 0)
    # Ones in the place of zeros, so that no infinity enters the gradient of the row that is masked.
    norms = [torch.where(zero, torch.ones_like(s), s).sqrt() for s in squares]
    return torch.where(zero, torch.zeros_like(squares[0]), (a * b).sum(-1) / (norms[0] * norms[1])).clamp(-1, 1)


def masked_mean(
    states: Float[Tensor, "row token *rest"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, "row *rest"]:
    """The mean of a row's states over the tokens of its mask, in float32 at least.

    Args:
        states: any dtype; what stands outside of the mask does not matter, unless it is NaN or infinite.
        mask: the tokens that count; padding and template tokens do not.

    Returns:
        One mean per row; zero, which `cosine` takes for no direction, for a row without tokens.
    """
    weights = mask.reshape(*mask.shape, *(1 for _ in states.shape[2:])).to(_wide(states).dtype)
    return (_wide(states) * weights).sum(1) / weights.sum(1).clamp(min=1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
