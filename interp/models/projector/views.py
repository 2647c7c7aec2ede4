"""What the tower sees of a picture: augmented views, and their features, standardised."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.prompts.pairs import Pair

WHITE = (255, 255, 255)
BATCH = 32


def view(picture: Any, rng: random.Random, *, flip: bool) -> Any:
    """A picture shifted, scaled, turned, tinted and maybe mirrored, of the same size.

    Args:
        picture: a square RGB image of Pillow.
        rng: decides how.
        flip: whether a mirror image still shows the same; letters and digits do not.
    """
    from PIL import Image, ImageChops, ImageEnhance

    side = picture.width
    if flip and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(rng.uniform(-20, 20), resample=Image.Resampling.BILINEAR, fillcolor=WHITE)
    scaled = int(side * rng.uniform(0.7, 1.15))
    picture = picture.resize((scaled, scaled), Image.Resampling.BICUBIC)
    canvas, most = Image.new("RGB", (side, side), WHITE), int(0.08 * side)
    middle = (side - scaled) // 2
    canvas.paste(picture, (middle + rng.randint(-most, most), middle + rng.randint(-most, most)))
    canvas = ImageEnhance.Color(canvas).enhance(0.0 if rng.random() < 0.15 else rng.uniform(0.4, 1.6))
    canvas = ImageEnhance.Brightness(canvas).enhance(rng.uniform(0.85, 1.1))
    canvas = ImageEnhance.Contrast(canvas).enhance(rng.uniform(0.75, 1.25))
    if rng.random() < 0.3:
        paper = tuple(rng.randint(200, 255) for _ in range(3))
        canvas = ImageChops.multiply(canvas, Image.new("RGB", canvas.size, paper))
    return canvas


def outlined(picture: Any, rng: random.Random) -> Any:
    """A picture drawn anew in black lines along its edges, its colours flattened, paled or left out.

    What a thing is called does not change with how it is drawn; a projector that saw only painted pictures reads
    nothing in one that is drawn in lines.

    Args:
        picture: an RGB image of Pillow.
        rng: decides how thick the lines are, from which contrast on, and what becomes of the colours.
    """
    from PIL import Image, ImageChops, ImageFilter

    smooth = picture.filter(ImageFilter.MedianFilter(5)) if rng.random() < 0.7 else picture
    steps = ImageChops.subtract(
        smooth.filter(ImageFilter.MaxFilter(3)), smooth.filter(ImageFilter.MinFilter(3))
    ).split()
    steepest, least = ImageChops.lighter(ImageChops.lighter(*steps[:2]), steps[2]), rng.randint(12, 60)
    edges = steepest.point([255 * (value > least) for value in range(256)]).filter(ImageFilter.MedianFilter(3))
    lines = edges.filter(ImageFilter.MaxFilter(rng.choice((3, 3, 5, 7)))).filter(ImageFilter.GaussianBlur(0.8))
    blank, kind = Image.new("RGB", picture.size, WHITE), rng.random()
    fill = smooth
    if kind < 0.25:
        fill = blank
    elif kind < 0.5:
        fill = picture.quantize(rng.choice((4, 6, 8))).convert("RGB")
    return Image.composite(Image.new("RGB", picture.size), Image.blend(fill, blank, rng.uniform(0, 0.5)), lines)


def views_of(pairs: Sequence[Pair], count: int, seed: int, outlines: float = 0.0) -> Callable[[int], list[Any]]:
    """How to get the n-th views of all pictures; the 0-th is the picture as it is.

    Args:
        pairs: the pictures.
        count: of views, at least one.
        seed: of the views.
        outlines: share of the pictures that are drawn in lines first.
    """
    from PIL import Image

    def nth(number: int) -> list[Any]:
        pictures = [Image.open(p.image).convert("RGB") for p in pairs]
        if number == 0:
            return pictures
        rng = random.Random(f"{seed} {number}")  # noqa: S311 - augmentation, not cryptography
        drawn = [outlined(x, rng) if rng.random() < outlines else x for x in pictures]
        return [view(x, rng, flip=p.scene != "porn-symbol") for x, p in zip(drawn, pairs, strict=True)]

    if count < 1:
        raise ValueError("a picture has at least one view, itself.")
    return nth


@torch.no_grad()
def features(
    tower: Any, processor: Any, pictures: Sequence[Any], layers: Sequence[int]
) -> Float[Tensor, "picture token feature"]:
    """The tower's states of each patch, the chosen layers side by side, in fp16 on the CPU.

    Args:
        tower: a `Dinov2Model`.
        processor: the image processor that the finished model will use.
        pictures: RGB images of Pillow.
        layers: indices into the tower's hidden states; 0 is the embedding.
    """
    found = []
    for start in range(0, len(pictures), BATCH):
        pixels = processor(images=list(pictures[start : start + BATCH]), return_tensors="pt")["pixel_values"]
        states = tower(pixel_values=pixels.to(tower.dtype), output_hidden_states=True).hidden_states
        found.append(torch.cat([states[layer][:, 1:] for layer in layers], dim=-1).half())
    return torch.cat(found)
