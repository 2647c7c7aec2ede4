"""The pictures between no picture and the real one: what is taken away shows what an effect is due to.

"No image" has been measured by handing the vision tower a tensor of zeros, which is a picture: the processor's mean
colour, as large as any other. Here the two are different rungs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from interp.cache.publish import make_folder, publishing
from interp.prompts.images import image_digest, read_image

NONE, ZERO, MEAN, RANDOM, BLURRED, TWIN, REAL = (
    "question alone", "zero image", "mean colour", "random colour", "blurred", "twin's picture", "real picture"
)  # fmt: skip
RUNGS = (NONE, ZERO, MEAN, RANDOM, BLURRED, TWIN, REAL)
"""From the bottom of the ladder to its top."""
WHAT_THEY_ARE = {
    NONE: "no image tokens: the instruction under the chat template, and nothing in the picture's place",
    ZERO: "the processor's mean colour, so that what enters the vision tower is zero but for the rounding to 8 bits",
    MEAN: "the mean colour of the picture, everywhere",
    RANDOM: "one colour drawn at random for every picture",
    BLURRED: "the picture behind a Gaussian blur: its colours where they were, its shapes gone",
    TWIN: "the picture of the harmless twin",
    REAL: "the picture",
}
BLUR = 0.1
"""Standard deviation of the blur as a share of the picture's shorter side."""


def zero_colour(image_processor: Any) -> tuple[int, int, int]:
    """The colour that a picture processor maps to zero, to the nearest of 256 steps.

    That is the mean it subtracts; black for a processor that subtracts none.

    Args:
        image_processor: of a vision-language model, with ``image_mean`` and ``do_normalize`` as transformers has them.
    """
    mean = getattr(image_processor, "image_mean", None)
    if mean is None or not getattr(image_processor, "do_normalize", True):
        return (0, 0, 0)
    values = [mean] * 3 if isinstance(mean, float | int) else list(mean)
    red, green, blue = (round(255 * float(v)) for v in values)
    return (red, green, blue)


def drawn_pictures(
    rung: str, pictures: Sequence[str], folder: Path, *, zero: tuple[int, int, int], seed: int = 0
) -> list[str]:
    """The pictures of one rung, drawn from real ones and kept as files.

    Args:
        rung: zero image, mean colour, random colour or blurred.
        pictures: paths of the real pictures.
        folder: where files are kept; one that is there is not drawn again.
        zero: see `zero_colour`.
        seed: of the random colours. The colour of a picture depends on its bytes and the seed alone.

    Returns:
        Paths of PNG files, each as large as its picture. Zero images of the same size are one file.

    Raises:
        ImageError: for a picture that can not be read.
    """
    make_folder(folder)
    return [str(_drawn(rung, picture, folder, zero, seed)) for picture in pictures]


def _drawn(rung: str, picture: str, folder: Path, zero: tuple[int, int, int], seed: int) -> Path:
    digest, real = image_digest(picture), read_image(picture)
    name = {
        ZERO: f"zero-{real.width}x{real.height}-{'.'.join(map(str, zero))}",
        RANDOM: f"random-{seed}-{digest[:24]}",
    }.get(rung, f"{rung.replace(' ', '-')}-{digest[:24]}")
    path = folder / f"{name}.png"
    if not path.exists():
        made = _made(rung, real, zero, seed, digest)
        with publishing(path) as part:
            made.save(part, format="PNG")
    return path


def _made(rung: str, real: Image.Image, zero: tuple[int, int, int], seed: int, digest: str) -> Image.Image:
    if rung == ZERO:
        return Image.new("RGB", real.size, zero)
    if rung == RANDOM:
        colour = np.random.default_rng([seed, int(digest[:16], 16)]).integers(0, 256, 3)
        return Image.new("RGB", real.size, (int(colour[0]), int(colour[1]), int(colour[2])))
    if rung == MEAN:
        mean = np.asarray(real, dtype=np.float64).mean((0, 1)).round().astype(int)
        return Image.new("RGB", real.size, (int(mean[0]), int(mean[1]), int(mean[2])))
    if rung == BLURRED:
        return real.filter(ImageFilter.GaussianBlur(BLUR * min(real.size)))
    raise ValueError(f"{rung!r} is no rung that is drawn; the rungs are {', '.join(RUNGS)}.")
