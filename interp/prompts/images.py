"""Pictures of prompts, read from disk with suspicion: a few formats, limits, and one way to turn each into RGB.

- PNG, JPEG and WebP only, whatever the file is called; of an animation the first frame.
- Size limits hold before anything is decoded, and a file that ends early is refused rather than filled up.
- The orientation that a camera noted (EXIF) is applied, so that a model sees what a viewer shows.
- Transparency lies on white; 16 bits per channel become 8 by their upper byte.
"""

import hashlib
import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
BACKGROUND = (255, 255, 255)
MOST_BYTES = 32 * 2**20
MOST_PIXELS = 2**25


def read_image(path: Path | str, *, most_bytes: int = MOST_BYTES, most_pixels: int = MOST_PIXELS) -> "Image":
    """The picture in a file, RGB, 8 bits per channel, upright.

    Args:
        path: the file; an address is never fetched.
        most_bytes: of the file.
        most_pixels: width times height, as the file's header says.

    Raises:
        ImageError: naming path and remedy, for a file that is not there, of another format, too large, damaged, or
            without a pixel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    data = _bytes(path, most_bytes)
    try:
        with warnings.catch_warnings():
            # Pillow warns of what its own limit lets pass; the limit here is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image as opened:
            if opened.width * opened.height > most_pixels:
                raise ImageError(
                    path,
                    f"has {opened.width} x {opened.height} pixels, {most_pixels} are allowed; save it smaller",
                )
            opened.load()
            return _rgb(ImageOps.exif_transpose(opened))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, f"is no {', '.join(FORMATS)} picture; convert it to one of them") from error
    except Exception as error:  # the readers of the formats share no base class of errors
        raise ImageError(path, f"is damaged or cut off ({error}); save or fetch it again") from error


def image_digest(path: Path | str) -> str:
    """The sha256 hex digest of a picture's file, which stands for it wherever the path must not.

    Raises:
        ImageError: when the file is not there, can not be read, or is larger than `MOST_BYTES`.
    """
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        state = None
    if state is None:
        return hashlib.sha256(_bytes(path, MOST_BYTES)).hexdigest()  # which says what is wrong
    return _digest(str(path), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=2**16)
def _digest(path: str, *_: int) -> str:
    return hashlib.sha256(_bytes(path, MOST_BYTES)).hexdigest()


def is_address(path: str) -> bool:
    """Whether an image is named by an address of the network, or lies in the name itself, rather than by a path."""
    return "://" in path or path.lower().startswith("data:")


def _bytes(path: Path | str, most: int) -> bytes:
    if is_address(str(path)):
        raise ImageError(path, "is an address, and pictures are read from disk only; fetch it and give its path")
    file = Path(path)
    try:
        if not file.is_file():
            raise ImageError(path, "is not there or no file; check the path, which counts from the prompt file")
        if file.stat().st_size > most:
            raise ImageError(path, f"has {file.stat().st_size} bytes, {most} are allowed; save it smaller")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(path, f"can not be read: {error}") from error


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    whole = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    whole.alpha_composite(image.convert("RGBA"))
    return whole.convert("RGB")
