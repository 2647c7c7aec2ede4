"""What a model says next, for texts that grow token by token and branch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError
from interp.models.anatomy import accepts
from interp.models.padding import left_padded, right_padded
from interp.models.pictures import CROSSING, Picture, picture_inputs, showing


@runtime_checkable
class Texts(Protocol):
    """Texts that a model has read to their ends."""

    @property
    def next_log_probs(self) -> Float[Tensor, "row vocab"]:
        """Log-probabilities of the next token in nats, float32, on the model's device."""
        ...

    def grown(self, rows: Sequence[int], tokens: Sequence[int]) -> "Texts":
        """Some of the texts, each with one more token; the texts themselves stay as they are.

        Args:
            rows: which texts, at least one, the same one several times where it branches.
            tokens: the vocabulary id that follows each.
        """
        ...

    def foretold(self, rows: Sequence[int], sequences: Sequence[Sequence[int]]) -> list[Float[Tensor, " _"]]:
        """How likely some texts go on as told, read at once; the texts themselves stay as they are.

        Args:
            rows: which texts, at least one, the same one several times for several sequences.
            sequences: vocabulary ids that follow each, two or more.

        Returns:
            Per sequence the log-probability in nats of each of its tokens but the first, behind all before it; float32
            on the model's device.
        """
        ...


@torch.no_grad()
def read(model: Any, texts: Sequence[Sequence[int]], pictures: Sequence[Picture | None] = ()) -> Texts:
    """Reads texts in one batch; each gives the same alone, up to the rounding of the model's dtype.

    Args:
        model: a causal or vision-language model of transformers.
        texts: vocabulary ids, at least one text, none of them empty.
        pictures: what each text shows: one for each, or none at all.

    Returns:
        Texts that grow at the cost of one token where the model keeps plain keys and values, else (a recurrent state
        can not be branched in general) at that of reading them anew.

    Raises:
        ModelError: when the model's logits are no numbers, here or as a text grows, and for texts of which only some
            show a picture.
    """
    pictures = tuple(pictures) or (None,) * len(texts)
    ids, mask = left_padded(texts, pad=0)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    seen = picture_inputs(model, pictures, ids, mask)
    if CROSSING in seen:  # every token looks at the picture anew, and is to be told at which part
        return _read_anew(model, texts, pictures)
    positions = seen.pop("position_ids", positions)
    last = torch.full((len(ids),), ids.shape[1] - 1)
    with showing(pictures):
        log_probs, output = _forward(model, ids, mask, positions, last, use_cache=True, **seen)
    if keeps_plainly(getattr(output, "past_key_values", None)):
        return Kept(model, output.past_key_values, mask, positions[..., -1:].cpu() + 1, log_probs)
    return _read_anew(model, texts, pictures)


def keeps_plainly(cache: Any) -> bool:
    """Whether a cache holds nothing but keys and values, from which a row can be taken up where it was left."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = getattr(cache, "layers", ())
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@dataclass(frozen=True, slots=True)
class Kept:
    """Texts whose keys and values are kept, padded on the left as in generation.

    Attributes:
        following: the place of the next token of each text; where places have several parts, those first.
    """

    model: Any
    cache: Any
    mask: Int[Tensor, "row token"]
    following: Int[Tensor, "*part row one"]
    next_log_probs: Float[Tensor, "row vocab"]

    @property
    def plain(self) -> bool:
        """Whether every layer keeps the keys and values of all tokens, none forgotten."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.cache.layers)

    @torch.no_grad()
    def read_on(self, cache: Any, width: int) -> "Kept":
        """The texts when their last tokens are read again, behind what a cache holds of those before.

        Whoever calls this sees to what the tokens are; embeddings of other ones enter the model.

        Args:
            cache: of all but the last tokens; it takes in what is read.
            width: how many last tokens.
        """
        places = (self.following - width + torch.arange(width)).clamp(min=0)
        ids, last = torch.zeros(len(self.mask), width, dtype=torch.long), torch.full((len(self.mask),), width - 1)
        options = {"past_key_values": cache, "use_cache": True}
        log_probs, _ = _forward(self.model, ids, self.mask, places, last, **options)
        return Kept(self.model, cache, self.mask, self.following, log_probs)

    @torch.no_grad()
    def grown(self, rows: Sequence[int], tokens: Sequence[int]) -> "Kept":
        """See `Texts.grown`."""
        cache = _branched(self.cache, torch.tensor(rows, device=self.next_log_probs.device))
        before = self.mask[list(rows)]
        mask = torch.cat([before, before.new_ones(len(rows), 1)], 1)
        ids, last = torch.tensor(tokens)[:, None], torch.zeros(len(rows), dtype=torch.long)
        options, places = {"past_key_values": cache, "use_cache": True}, self.following[..., list(rows), :]
        log_probs, _ = _forward(self.model, ids, mask, places, last, **options)
        return Kept(self.model, cache, mask, places + 1, log_probs)

    @torch.no_grad()
    def foretold(self, rows: Sequence[int], sequences: Sequence[Sequence[int]]) -> list[Float[Tensor, " _"]]:
        """See `Texts.foretold`."""
        cache = _branched(self.cache, torch.tensor(rows, device=self.next_log_probs.device))
        ids, there = right_padded([sequence[:-1] for sequence in sequences])
        mask = torch.cat([self.mask[list(rows)], there.to(self.mask)], 1)
        places = self.following[..., list(rows), :] + torch.arange(ids.shape[1])
        output = _run(self.model, ids, mask, places, past_key_values=cache, use_cache=True)
        return _told(self.model, output.logits, [0] * len(rows), sequences)


def with_own_layers(cache: Any) -> Any:
    """A cache that can grow and leaves the given one as it is; see `keeps_plainly` for which caches.

    Plain layers take rows and new tokens into new tensors, so their keys and values need no copy: it would double the
    time.
    """
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own


def _branched(cache: Any, rows: Int[Tensor, " row"]) -> Any:
    """The keys and values of some rows, as a cache of its own."""
    branched = with_own_layers(cache)
    branched.batch_select_indices(rows)
    return branched


@dataclass(frozen=True, slots=True)
class _Whole:
    """Texts that are read anew from the start whenever they grow."""

    model: Any
    texts: tuple[tuple[int, ...], ...]
    pictures: tuple[Picture | None, ...]
    next_log_probs: Float[Tensor, "row vocab"]

    def grown(self, rows: Sequence[int], tokens: Sequence[int]) -> "_Whole":
        grown = [(*self.texts[row], token) for row, token in zip(rows, tokens, strict=True)]
        return _read_anew(self.model, grown, tuple(self.pictures[row] for row in rows))

    @torch.no_grad()
    def foretold(self, rows: Sequence[int], sequences: Sequence[Sequence[int]]) -> list[Float[Tensor, " _"]]:
        texts = [self.texts[row] for row in rows]
        longer = [(*text, *sequence[:-1]) for text, sequence in zip(texts, sequences, strict=True)]
        pictures = tuple(self.pictures[row] for row in rows)
        ids, mask, positions, seen = _laid_out(self.model, longer, pictures)
        starts = [len(text) for text in texts]
        if accepts(self.model, "logits_to_keep"):  # those of whole prompts would be most of what is held
            seen["logits_to_keep"] = torch.arange(
                min(starts), ids.shape[1], device=next(self.model.parameters()).device
            )
            starts = [start - min(starts) for start in starts]
        with showing(pictures):
            output = _run(self.model, ids, mask, positions, use_cache=False, **seen)
        return _told(self.model, output.logits, starts, sequences)


def _laid_out(
    model: Any, texts: Sequence[Sequence[int]], pictures: tuple[Picture | None, ...]
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Ids, mask and positions of whole texts, padded on the right, and what the model is told of their pictures."""
    ids, mask = right_padded(texts)
    seen = picture_inputs(model, pictures, ids, mask)
    positions = seen.pop("position_ids", torch.arange(ids.shape[1]).expand(ids.shape))
    return ids, mask, positions, seen


@torch.no_grad()
def _read_anew(model: Any, texts: Sequence[Sequence[int]], pictures: tuple[Picture | None, ...]) -> _Whole:
    ids, mask, positions, seen = _laid_out(model, texts, pictures)
    with showing(pictures):
        log_probs, _ = _forward(model, ids, mask, positions, mask.sum(-1) - 1, use_cache=False, **seen)
    return _Whole(model, tuple(map(tuple, texts)), pictures, log_probs)


def _forward(
    model: Any,
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row seen"],
    positions: Int[Tensor, "*part row token"],
    ends: Int[Tensor, " row"],
    **options: Any,
) -> tuple[Float[Tensor, "row vocab"], Any]:
    """The log-probabilities of what follows the token at ``ends`` of each row, and the model's whole output."""
    places = ends
    if accepts(model, "logits_to_keep"):
        # As indices, not as a number: a slice of the last states is not contiguous, and a head of 16-bit numbers on a
        # CPU is then copied once per row, which takes longer than all of the model.
        kept, places = ends.unique(return_inverse=True)
        options["logits_to_keep"] = kept.to(next(model.parameters()).device)
    output = _run(model, ids, mask, positions, **options)
    rows = torch.arange(len(ids), device=output.logits.device)
    logits = output.logits[rows, places.to(output.logits.device)]
    return _log_probs(model, logits), output


def _run(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, **options: Any) -> Any:
    """The model's output."""
    device = next(model.parameters()).device
    if accepts(model, "position_ids"):
        options["position_ids"] = positions.to(device)
    return model(input_ids=ids.to(device), attention_mask=mask.to(device), **options)


def _told(
    model: Any, logits: Float[Tensor, "row token vocab"], starts: Sequence[int], sequences: Sequence[Sequence[int]]
) -> list[Float[Tensor, " _"]]:
    """The log-probability of every token of a sequence but the first, which was read at index ``start`` of its row."""
    found = []
    for row, start, sequence in zip(logits, starts, sequences, strict=True):
        # Row by row: all of them in float32 at once would be most of what is held.
        log_probs = _log_probs(model, row[start : start + len(sequence) - 1])
        found.append(log_probs.gather(-1, torch.tensor(sequence[1:], device=logits.device)[:, None])[:, 0])
    return found


def _log_probs(model: Any, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    log_probs = torch.log_softmax(logits.float(), -1)
    if log_probs.isnan().any():
        raise ModelError(
            f"{type(model).__name__}: the next token has no probability (NaN); use a wider dtype, as fp32."
        )
    return log_probs
