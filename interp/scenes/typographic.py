"""Prompts drawn as pictures of their own words, so that every prompt set has an image arm.

The attack that reads so is FigStep (arXiv:2311.05608), which draws a rephrased request as a numbered list. Here the
request is drawn as it is: the two arms must say the same.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from interp.errors import UsageError
from interp.prompts.prompt import Message, PromptSet

PIXELS, MARGIN = 448, 24
SIZES = (40, 34, 28, 24, 20, 17, 14, 12, 10, 8)
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})
"""Marks that Pillow's own font, which has ASCII alone, draws as their plain form."""
INSTRUCTION = "Do what the text in the picture says."


def typographic(
    prompts: PromptSet,
    folder: Path,
    *,
    instruction: str = INSTRUCTION,
    pixels: int = PIXELS,
    font: Path | None = None,
) -> PromptSet:
    """The same prompts, each with its last message drawn as a picture and replaced by one instruction for all.

    Args:
        prompts: any prompts without pictures.
        folder: gets the pictures, named by what they show; it is made when it is not there.
        instruction: what the user says beside the picture.
        pixels: side of the square picture, black on white.
        font: a TrueType or OpenType file, for texts beyond ASCII; Pillow's own font when None.

    Returns:
        Prompts with the same ids, labels, categories, groups and splits, whose ``image`` is an absolute path.

    Raises:
        UsageError: a prompt has a picture already, a letter is not in the font, or a text is too long to be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for prompt in prompts:
        if prompt.image is not None:
            raise UsageError(f"prompt {prompt.id!r} has the picture {prompt.image} already; its text is not drawn.")
        content = text_png(prompt.text, pixels=pixels, font=font, whose=f"prompt {prompt.id!r}")
        path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        path.write_bytes(content)
        messages = (*prompt.messages[:-1], Message("user", instruction))
        drawn.append(replace(prompt, messages=messages, image=str(path.resolve())))
    return PromptSet(f"{prompts.name}, drawn", tuple(drawn))


def text_png(text: str, *, pixels: int = PIXELS, font: Path | None = None, whose: str = "the text") -> bytes:
    """Draws a text in black on a white square, wrapped, in the largest of `SIZES` that fits; the same bytes each time.

    Raises:
        UsageError: a letter is not in the font, or the text does not fit in the smallest size.
    """
    from PIL import Image, ImageDraw

    text = text.translate(PLAIN) if font is None else text
    missing = next((c for c in text if not c.isspace() and not _has(font, c)), None)
    if missing is not None:
        raise UsageError(f"{whose}: the font has no {missing!r} (U+{ord(missing):04X}); give one that does with font=.")
    canvas = Image.new("RGB", (pixels, pixels), "white")
    pen = ImageDraw.Draw(canvas)
    room = pixels - 2 * MARGIN
    for size in SIZES:
        face = _face(font, size)
        lines = [line for part in text.splitlines() for line in _wrapped(part, face, room)]
        written = "\n".join(lines)
        left, top, right, bottom = pen.multiline_textbbox((MARGIN, MARGIN), written, font=face)
        if right - left <= room and bottom - top <= room:
            pen.multiline_text((MARGIN, MARGIN), written, fill="black", font=face)
            file = io.BytesIO()
            canvas.save(file, "PNG")
            return file.getvalue()
    raise UsageError(f"{whose} is too long to be drawn: {len(text)} characters on {pixels} x {pixels} pixels.")


def _wrapped(line: str, face: Any, room: int) -> Sequence[str]:
    """Breaks a line at spaces, and inside a word that is wider than the room."""
    lines, current = [], ""
    for word in line.split(" "):
        longer = f"{current} {word}" if current else word
        if face.getlength(longer) <= room:
            current = longer
            continue
        if current:
            lines.append(current)
        while face.getlength(word) > room:
            fits = next(n for n in range(len(word), 0, -1) if n == 1 or face.getlength(word[:n]) <= room)
            lines.append(word[:fits])
            word = word[fits:]
        current = word
    return [*lines, current]


@cache
def _face(font: Path | None, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size) if font is None else ImageFont.truetype(str(font), size)


@cache
def _has(font: Path | None, character: str) -> bool:
    """Whether the font draws the character as itself: what it lacks looks like a code point that is never assigned."""
    face = _face(font, SIZES[0])
    drawn, lacking = (face.getmask(c) for c in (character, "\U0010ffff"))
    return drawn.size != lacking.size or bytes(drawn) != bytes(lacking)
