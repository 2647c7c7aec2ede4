"""Pictures on their way into a vision-language model: what its processor makes of them, alone and in a batch.

The processor itself says how many tokens a picture takes and where separators stand among them; nothing here counts
patches or knows an architecture.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.prompts.images import image_digest, read_image
from interp.prompts.prompt import Prompt

PER_TOKEN = ("mm_token_type_ids", "token_type_ids")
"""What processors call the kinds of tokens, where a model asks for them beside the ids."""
OF_TEXT = ("input_ids", "attention_mask", *PER_TOKEN)

_shown: ContextVar[tuple[str, ...]] = ContextVar("pictures of the rows of the forward that runs", default=())


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The picture of one prompt, read again whenever a batch needs it: prompts hold no pixels.

    Attributes:
        path: its file.
        sha256: digest of the file.
        kinds: what the model calls the kinds of tokens; empty where it does not ask for them.
        reader: the processor.
    """

    path: str
    sha256: str
    kinds: str
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
        kinds: see `Picture.kinds`.
    """

    text: str
    special: bool
    pixels: dict[str, Tensor]
    kinds: str


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

    def written(self, path: str, text: str) -> Written:
        """What the processor makes of a picture and a text with one placeholder.

        Raises:
            ImageError: when the picture can not be read.
            ModelError: when the processor refuses it.
        """
        picture = read_image(path)
        processor, heard = copy.copy(self.processor), _Heard(self.processor.tokenizer)
        processor.tokenizer = heard
        try:
            found = processor(text=[text], images=[picture], return_tensors="pt")
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError, ZeroDivisionError) as error:
            kind = type(self.processor).__name__
            raise ModelError(f"{path}: the model's {kind} refuses this picture: {error}") from error
        kinds = next((name for name in PER_TOKEN if name in found and _is_kinds(found[name])), "")
        pixels = {name: value for name, value in found.items() if name not in OF_TEXT and isinstance(value, Tensor)}
        return Written(heard.text, heard.special, pixels, kinds)

    def picture(self, prompt: Prompt, kinds: str) -> Picture:
        """The picture of a prompt that has one."""
        path = str(prompt.image)
        return Picture(path, image_digest(path), kinds, self)

    def kinds(self, ids: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
        """The kind of every token, as the processor numbers them."""
        return torch.tensor(self.processor.create_mm_token_type_ids(ids.tolist()))


def _is_kinds(values: Any) -> bool:
    """Whether any token is of another kind; tokenizers call the number of the text in a pair so, too."""
    return isinstance(values, Tensor) and bool(values.any())


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
    pictures: Sequence[Picture],
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row token"],
) -> dict[str, Tensor]:
    """The arguments of a vision-language model's forward that come with the pictures of a batch, one for every row.

    Args:
        model: of transformers, with or without its head.
        pictures: one per row.
        ids: the rows, padded on either side.
        mask: 1 for a token, 0 for padding.

    Returns:
        On the model's device, numbers of pixels in its dtype: pixels and what goes with them, the kinds of tokens
        where the model asks for them, and the places of tokens where those of a picture are not counted one by one.
    """
    first = next(model.parameters())
    rows = [picture.pixels() for picture in pictures]
    inputs: dict[str, Tensor] = {name: stacked([row[name] for row in rows]) for name in rows[0]}
    kinds = pictures[0].kinds
    if kinds:
        inputs[kinds] = pictures[0].reader.kinds(ids) * mask
    inputs = {k: v.to(first.device, first.dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
    rope = getattr(model.base_model, "get_rope_index", None)
    if rope is not None:
        # Given explicitly, or the model would keep how far they are off in itself and use that for later texts.
        known = {k: v for k, v in inputs.items() if k in (kinds, "image_grid_thw")}
        inputs["position_ids"] = rope(ids.to(first.device), attention_mask=mask.to(first.device), **known)[0]
    return inputs


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
