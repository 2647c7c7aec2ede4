"""Pictures on their way into a vision-language model: what its processor makes of them, alone and in a batch.

The processor itself says how many tokens a picture takes and where separators stand among them; nothing here counts
patches or knows an architecture.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.anatomy import accepts
from interp.prompts.images import image_digest, read_image
from interp.prompts.prompt import Prompt

PER_TOKEN = ("mm_token_type_ids", "token_type_ids")
"""What processors call the kinds of tokens, where a model asks for them beside the ids."""
CROSSING = "cross_attention_mask"
"""What says which part of a picture each token looks at, in models where pictures stand beside the text."""
OF_TEXT = ("input_ids", "attention_mask", "labels", *PER_TOKEN)

_shown: ContextVar[tuple[str, ...]] = ContextVar("pictures of the rows of the forward that runs", default=())


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The picture of one prompt, read again whenever a batch needs it: prompts hold no pixels.

    Attributes:
        path: its file.
        sha256: digest of the file.
        asked: how many tokens the prompt has, those of the picture among them and a response not.
        reader: the processor.
    """

    path: str
    sha256: str
    asked: int
    reader: "PictureReader" = field(repr=False)

    def pixels(self) -> dict[str, Tensor]:
        """What the processor gives the model beside token ids: pixels, sizes, masks."""
        return self.reader.written(self.path, self.reader.placeholder).pixels


@dataclass(frozen=True, slots=True)
class Written:
    """A text whose placeholder the processor wrote out for a picture.

    Attributes:
        text: as it is to be tokenized.
        special: whether the processor lets the tokenizer add special tokens.
        pixels: see `Picture.pixels`.
    """

    text: str
    special: bool
    pixels: dict[str, Tensor]

    @property
    def crossing(self) -> bool:
        """Whether the model looks at the picture from beside the text; then no token of it becomes the picture."""
        return CROSSING in self.pixels


def tokenizer_of(reader: Any) -> Any:
    """The tokenizer of a processor that reads pictures; anything else is one itself."""
    return reader.tokenizer if hasattr(reader, "image_processor") else reader


class PictureReader:
    """The part of a processor of transformers that reads pictures.

    Attributes:
        processor: with its tokenizer and image processor.
        placeholder: what stands for a picture in a text before the processor writes it out.
        image_id: the vocabulary id of the tokens whose embeddings become the picture.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.placeholder: str = processor.image_token
        # Gemma's processor calls the token that begins a picture its image token; the tokenizer knows the other.
        own = getattr(processor.tokenizer, "image_token_id", None)
        self.image_id = int(processor.image_token_id if own is None else own)

    def written(self, path: str | None, text: str) -> Written:
        """What the processor makes of a picture and a text with one placeholder, or of a text without any.

        Raises:
            ImageError: when the picture can not be read.
            ModelError: when the processor refuses it.
        """
        seen = {} if path is None else {"images": [read_image(path)]}
        processor, heard = copy.copy(self.processor), _Heard(self.processor.tokenizer)
        processor.tokenizer = heard
        try:
            found = processor(text=[text], return_tensors="pt", **seen)
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError, ZeroDivisionError) as error:
            kind = type(self.processor).__name__
            raise ModelError(f"{path or repr(text)}: the model's {kind} refuses it: {error}") from error
        pixels = {name: value for name, value in found.items() if name not in OF_TEXT and isinstance(value, Tensor)}
        return Written(heard.text, heard.special, pixels)

    def picture(self, prompt: Prompt, asked: int) -> Picture:
        """The picture of a prompt that has one, which is ``asked`` tokens long."""
        path = str(prompt.image)
        return Picture(path, image_digest(path), asked, self)

    @cached_property
    def reads_text(self) -> bool:
        """Whether the processor takes a text without a picture, too."""
        try:
            self.processor(text=["a"])
        except ValueError:
            return False
        return True

    @cached_property
    def numbers_kinds(self) -> bool:
        """Whether the processor numbers tokens by what they are of: 1 for those of a picture, 0 for text."""
        return bool(getattr(self.processor, "return_mm_token_type_ids", False))


class _Heard:
    """A tokenizer that remembers what a processor had it tokenize."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text, self.special = "", True

    def __call__(self, text: Any, **options: Any) -> Any:
        (self.text,) = [text] if isinstance(text, str) else text
        self.special = bool(options.get("add_special_tokens", True))
        return self._tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def picture_inputs(
    model: Any,
    pictures: Sequence[Picture | None],
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row token"],
    *,
    places: bool = True,
) -> dict[str, Tensor]:
    """The arguments of a vision-language model's forward that come with the pictures of a batch.

    Args:
        model: of transformers, with or without its head.
        pictures: one per row, or none in any row.
        ids: the rows, padded on either side.
        mask: 1 for a token, 0 for padding.
        places: whether to say where tokens are, for models that do not count those of a picture one by one.

    Returns:
        On the model's device, numbers of pixels in its dtype: pixels and what goes with them, the kinds of tokens
        where the model asks for them, and places as ``position_ids``. Empty for rows without pictures.
    """
    shown_here = [picture for picture in pictures if picture is not None]
    if not shown_here:
        return {}
    if len(shown_here) < len(pictures):
        raise ModelError("rows with and without pictures run in batches of their own; this is one of both.")
    first = next(model.parameters())
    rows = [picture.pixels() for picture in shown_here]
    inputs: dict[str, Tensor] = {name: stacked([row[name] for row in rows]) for name in rows[0]}
    if CROSSING in inputs:
        # The processor says which tiles there are to look at; every token from the picture's place on may.
        tiles = torch.cat([row[CROSSING][:, -1] for row in rows])
        sees = (ids == shown_here[0].reader.image_id).cumsum(-1).clamp(max=1) * mask
        inputs[CROSSING] = sees[..., None, None] * tiles[:, None]
    kinds = next((name for name in PER_TOKEN if accepts(model.base_model, name)), "")
    if kinds:
        inputs[kinds] = _kinds(shown_here, ids, mask)
    inputs = {k: v.to(first.device, first.dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
    rope = getattr(model.base_model, "get_rope_index", None)
    if places and rope is not None:
        # Given explicitly, or the model would keep how far they are off in itself and use that for later texts.
        known = {k: v for k, v in inputs.items() if k in (kinds, "image_grid_thw")}
        inputs["position_ids"] = rope(ids.to(first.device), attention_mask=mask.to(first.device), **known)[0]
    return inputs


def _kinds(
    pictures: Sequence[Picture], ids: Int[Tensor, "row token"], mask: Int[Tensor, "row token"]
) -> Int[Tensor, "row token"]:
    """The kinds of tokens: 1 for a picture's, or else (PaliGemma) for those behind the prompt, which sees ahead."""
    reader = pictures[0].reader
    if reader.numbers_kinds:
        return torch.tensor(reader.processor.create_mm_token_type_ids(ids.tolist())) * mask
    asked = torch.tensor([picture.asked for picture in pictures])[:, None]
    return (mask.cumsum(-1) > asked).long() * mask


@contextmanager
def counting_anew(model: Any) -> Iterator[None]:
    """Has a model forget behind the block how far the places of tokens behind a picture are off."""
    try:
        yield
    finally:
        if getattr(model.base_model, "rope_deltas", None) is not None:
            model.base_model.rope_deltas = None


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other along their first axis; where the others differ, filled up with zeros at the end.

    Args:
        parts: of equally many axes.
    """
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    filled = []
    for part in parts:
        missing = [size - have for size, have in zip(sizes, part.shape[1:], strict=True)]
        pad = [n for m in reversed(missing) for n in (0, m)]
        filled.append(nn.functional.pad(part, pad) if any(missing) else part)
    return torch.cat(filled)


@contextmanager
def showing(pictures: Sequence[Picture | None]) -> Iterator[None]:
    """Says whose pictures a forward inside the block reads, row by row; token ids alone do not tell pictures apart."""
    token = _shown.set(tuple("" if picture is None else picture.sha256 for picture in pictures))
    try:
        yield
    finally:
        _shown.reset(token)


def shown() -> tuple[str, ...]:
    """Digests of the pictures of the rows of the forward that runs, empty for none; nothing where nobody said."""
    return _shown.get()


def refuse_pictures(pictures: Sequence[Picture | None], backend: str) -> None:
    """Says that a backend reads no pictures.

    Raises:
        ModelError: when there are any.
    """
    if any(pictures):
        raise ModelError(f"the backend {backend} reads no pictures; use --backend hooks.")


def require_same_image_token(reader: PictureReader, config: Mapping[str, Any]) -> None:
    """Checks that processor and model take the same token for a picture's.

    Raises:
        ModelError: when they do not, as with a processor of another model.
    """
    found = next((config[k] for k in ("image_token_id", "image_token_index") if config.get(k) is not None), None)
    if found is not None and found != reader.image_id:
        raise ModelError(
            f"the processor puts token {reader.image_id} where a picture is read, the model reads it at {found}; they "
            "do not belong together."
        )
