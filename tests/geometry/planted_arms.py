"""Pairs whose arms are alike by construction: at some layers, everywhere, or nowhere."""

import numpy as np
import torch

from interp.geometry import Arms

LAYERS, WIDTH, CONCEPTS, STYLES = tuple(range(6)), 32, 40, 3
STRENGTH = 2.0


def planted(aligned=(), *, concepts=CONCEPTS, styles=STYLES, seed=0, mean=0.0, gap=0.0, rogue=0.0, noise=1.0):
    """Noise of its own in both arms, and at the aligned layers a part that a concept's two arms share.

    Args:
        aligned: layers at which they share it.
        concepts: how many.
        styles: pictures of each, all with one caption.
        seed: of the noise.
        mean: length of a mean that both arms share.
        gap: what the image arm alone is moved by, along coordinate 1.
        rogue: what both arms hold in coordinate 0, beside noise as large as the others'.
        noise: of every picture.
    """
    rng = np.random.default_rng(seed)
    shape = (concepts, len(LAYERS), WIDTH)
    caption = rng.normal(size=shape)
    image = rng.normal(size=shape)
    for layer in aligned:
        image[:, layer] += STRENGTH * caption[:, layer]
    image = np.repeat(image, styles, axis=0) + noise * rng.normal(size=(concepts * styles, *shape[1:]))
    caption = np.repeat(caption, styles, axis=0)
    common = rng.normal(size=WIDTH)
    for arm in (image, caption):
        arm += mean * common / np.linalg.norm(common)
        arm[..., 0] += rogue
    image[..., 1] += gap
    names = tuple(f"c{i // styles:03d}" for i in range(concepts * styles))
    return Arms(torch.from_numpy(image).float(), torch.from_numpy(caption).float(), names, LAYERS)


def identical(arms):
    return Arms(arms.image, arms.image.clone(), arms.concepts, arms.layers)


def mismatched(arms, seed=0):
    """Every picture beside the caption of another concept."""
    n = len(arms.names)
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, dtype=int)
    other[order] = np.roll(order, 1)
    first = np.array([int(np.flatnonzero(arms.codes == c)[0]) for c in range(n)])
    return arms.with_captions(first[other[arms.codes]])


def rotated(arms, seed=0):
    """Both arms turned by the same random rotation."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(arms.image.shape[-1],) * 2))
    turn = torch.from_numpy(turn)
    image, caption = ((arm.double() @ turn).float() for arm in (arms.image, arms.caption))
    return Arms(image, caption, arms.concepts, arms.layers)


def reordered(arms, seed=0):
    """The same pairs in another order."""
    order = np.random.default_rng(seed).permutation(len(arms))
    rows = torch.from_numpy(order)
    return Arms(arms.image[rows], arms.caption[rows], tuple(np.array(arms.concepts)[order]), arms.layers)
