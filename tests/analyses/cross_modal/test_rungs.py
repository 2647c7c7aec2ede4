"""Pictures of the ladder: deterministic, as large as the original, and what they are said to be."""

import numpy as np
import pytest
from PIL import Image

from analyses.cross_modal.rungs import BLURRED, MEAN, RANDOM, ZERO, drawn_pictures, zero_colour

SIZE = (40, 30)
ZEROED = (123, 117, 104)


@pytest.fixture
def pictures(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i in range(3):
        pixels = np.full((SIZE[1], SIZE[0], 3), 255, dtype=np.uint8)
        pixels[5:20, 5:30] = rng.integers(0, 256, 3)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def pixels(path):
    with Image.open(path) as image:
        assert image.mode == "RGB" and image.size == SIZE
        return np.asarray(image, dtype=np.float64)


def test_every_rung_is_what_it_says(pictures, tmp_path):
    made = {rung: drawn_pictures(rung, pictures, tmp_path / "rungs", zero=ZEROED) for rung in
            (ZERO, MEAN, RANDOM, BLURRED)}  # fmt: skip
    assert len(set(made[ZERO])) == 1 and (pixels(made[ZERO][0]) == ZEROED).all()
    colours = set()
    for i, picture in enumerate(pictures):
        own = pixels(picture)
        assert np.abs(pixels(made[MEAN][i]) - own.mean((0, 1))).max() <= 0.5
        flat = pixels(made[RANDOM][i])
        assert (flat == flat[0, 0]).all()
        colours.add(tuple(flat[0, 0]))
        blurred = pixels(made[BLURRED][i])
        assert np.abs(blurred.mean((0, 1)) - own.mean((0, 1))).max() < 3
        assert np.abs(np.diff(blurred, axis=1)).max() < np.abs(np.diff(own, axis=1)).max() / 3
    assert len(colours) == 3


def test_the_same_pictures_and_seed_give_the_same_files(pictures, tmp_path):
    first = drawn_pictures(RANDOM, pictures, tmp_path / "a", zero=ZEROED, seed=1)
    again = drawn_pictures(RANDOM, pictures[::-1], tmp_path / "b", zero=ZEROED, seed=1)[::-1]
    other = drawn_pictures(RANDOM, pictures, tmp_path / "a", zero=ZEROED, seed=2)
    for a, b, c in zip(first, again, other, strict=True):
        assert (pixels(a) == pixels(b)).all() and not (pixels(a) == pixels(c)).all()


def test_a_zero_image_is_zero_behind_the_processor(pictures, tmp_path):
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False)
    zero = zero_colour(processor)
    (path,) = set(drawn_pictures(ZERO, pictures, tmp_path / "rungs", zero=zero))
    with Image.open(path) as image:
        seen = processor(images=[image], return_tensors="np")["pixel_values"]
    # Half of one of 256 steps, over the smallest standard deviation, is 0.0075.
    assert np.abs(seen).max() < 0.0076
    assert zero_colour(CLIPImageProcessor(do_normalize=False)) == (0, 0, 0)
    assert zero_colour(object()) == (0, 0, 0)
