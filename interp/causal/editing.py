"""Writing into the forward pass: the only place of the product that does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.causal.edits import Edit
from interp.causal.fitting import check, picture_of
from interp.errors import ModelError, UsageError
from interp.models.adapter import Adapter
from interp.models.anatomy import Site, first_tensor, output_tensor
from interp.models.encoding import Encoded
from interp.models.pictures import shown

Text = Sequence[int] | Encoded
StreamStates = Float[Tensor, "row token d_model"]


@contextmanager
def editing(
    adapter: Adapter, edits: Sequence[Edit], texts: Sequence[Text] = (), *, tail: int | None = None
) -> Iterator[None]:
    """Edits the residual stream in every forward inside the block, whoever starts it; no hook outlives the block.

    That is `Adapter.states` and everything that runs ``adapter.model``: answers, family likelihoods, logits. States
    that are read inside the block are those after the edits. Edits of one layer act in the order given.

    Edits at places act where a prompt is read, not on tokens that are generated after it with kept keys and values.
    Each row of a forward is recognised by the prompt that its tokens begin with and by its picture, so neither the
    order of the rows nor the side of the padding matters, nor what follows the prompt. What picture a row shows is
    known of every forward that this package starts; in others a text is recognised that belongs to one picture only.

    Args:
        adapter: any backend. It keeps and reuses no shared tokens inside the block.
        edits: what to write; none changes nothing.
        texts: the prompts, in the order of the rows of patches, as vocabulary ids or encoded; needed by edits at
            places, which refuse a forward of any other text. Edits at classes of tokens need them encoded.
        tail: every forward inside the block reads only so many last tokens of all texts, a row each in their order,
            behind kept keys and values; None where forwards read texts from their beginnings.

    Raises:
        UsageError: for layers the model does not have, vectors of another width, places before the start of a prompt
            or of its tail, patches with another number of rows than texts, and texts that can not be told apart.
        ModelError: when a forward inside the block runs none of the prompts, and at the end of the block when an edit
            did not act, or a layer of it was passed over.
    """
    known = [text if isinstance(text, Encoded) else Encoded(tuple(text), {}) for text in texts]
    check(edits, known, n_layers=adapter.n_layers, d_model=adapter.d_model)
    if tail is not None and any(not isinstance(e.at, tuple) or min(e.at) < -tail for e in edits):
        raise UsageError(f"an edit acts before the last {tail} tokens, which are all that is read anew.")
    places = _Places(known, tail)
    writers = [_Writer(adapter.sites[i], edits_of, places) for i, edits_of in sorted(_by_layer(adapter, edits).items())]
    handles, shares = [], adapter.shares
    try:
        if any(edit.at is not None for edit in edits):
            handles += places.register(adapter)
        handles += [writer.register() for writer in writers]
        adapter.shares = shares and not edits
        yield
    finally:
        adapter.shares = shares
        for handle in handles:
            handle.remove()
    _check_all_acted(adapter, edits, writers)


def _by_layer(adapter: Adapter, edits: Sequence[Edit]) -> dict[int, list[Edit]]:
    found: dict[int, list[Edit]] = {}
    for edit in edits:
        for layer in edit.at_layers(adapter.n_layers):
            found.setdefault(layer, []).append(edit)
    return found


@dataclass(slots=True)
class _Places:
    """Where the prompts are in the forward that runs now.

    Attributes:
        texts: the prompts.
        tail: how many last tokens of every prompt each forward reads; None where it reads them whole.
        rows: (row) which prompt each row of the forward begins with; None while tokens are added to prompts read.
        starts: (row) the token index at which that prompt begins.
        given: whether the decoder is about to be given what was looked at already.
    """

    texts: Sequence[Encoded]
    tail: int | None = None
    rows: Int[Tensor, " row"] | None = None
    starts: Int[Tensor, " row"] | None = None
    given: bool = False
    _known: dict[tuple[int, ...], dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row, text in enumerate(self.texts):
            self._known.setdefault(text.ids, {})[picture_of(text)] = row

    def register(self, adapter: Adapter) -> list[Any]:
        """Hooks whatever is given token ids: the decoder, and what of a vision-language model is around it."""
        decoder = adapter.model.get_decoder()  # type: ignore[operator]
        handles = [decoder.register_forward_pre_hook(self.find, with_kwargs=True)]
        if adapter.processor is not adapter.tokenizer:
            around: Any = adapter.model.base_model
            handles.append(around.register_forward_pre_hook(self._find_around, with_kwargs=True))
        return handles

    def _find_around(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.find(module, args, kwargs)
        self.given = True

    def find(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Looks at what the decoder is given, before it runs."""
        ids = args[0] if args else kwargs.get("input_ids")
        mask = kwargs.get("attention_mask")
        if ids is None and self.given:
            self.given = False
            return
        if ids is None or not (mask is None or mask.ndim == 2):
            raise ModelError("edits at places need a forward over token ids and a mask of (row, token).")
        self.given = False
        if self.tail is not None:
            if tuple(ids.shape) != (len(self.texts), self.tail):
                raise ModelError(
                    f"a forward of {tuple(ids.shape)} tokens, but edited are the last {self.tail} of "
                    f"{len(self.texts)} prompts."
                )
            self.rows = torch.arange(len(ids), device=ids.device)
            self.starts = torch.tensor([self.tail - len(text.ids) for text in self.texts], device=ids.device)
            return
        if _continues(ids, mask, kwargs.get("past_key_values")):
            self.rows = self.starts = None
            return
        mask = torch.ones_like(ids) if mask is None else mask
        seen: Sequence[str | None] = shown() or (None,) * len(ids)
        rows = zip(ids.cpu(), mask.cpu().bool(), seen, strict=True)
        found = [self._row(tokens[keep], keep, picture) for tokens, keep, picture in rows]
        self.rows, self.starts = torch.tensor(found, device=ids.device).T

    def _row(self, tokens: Int[Tensor, " token"], keep: Tensor, picture: str | None) -> tuple[int, int]:
        """Which prompt a text begins with, and the index where it begins; the longest one where several fit."""
        text = tuple(tokens.tolist())
        for length in sorted({len(ids) for ids in self._known}, reverse=True):
            fits = self._known.get(text[:length], {}) if length <= len(text) else {}
            if picture is not None and picture in fits:
                return fits[picture], int(keep.long().argmax())
            if picture is None and len(fits) == 1:
                return next(iter(fits.values())), int(keep.long().argmax())
        raise ModelError(
            f"a text of {len(text)} tokens begins with none of the {len(self.texts)} prompts that are edited, or it is "
            "not known with which picture; give `editing` all prompts that run inside it."
        )


def _continues(ids: Tensor, mask: Tensor | None, cache: Any) -> bool:
    """Whether a forward adds tokens to texts whose keys and values were kept."""
    if mask is not None and mask.shape[1] > ids.shape[1]:
        return True
    return cache is not None and cache.get_seq_length() > 0


@dataclass(slots=True)
class _Writer:
    """Writes the edits of one layer.

    Attributes:
        acted: the edits that changed a forward so far, by their places in ``edits``.
        ran: whether the layer ran at all.
    """

    site: Site
    edits: list[Edit]
    places: _Places
    acted: set[int] = field(default_factory=set)
    ran: bool = False

    def register(self) -> Any:
        """Hooks the module, before all other hooks: those that read see what was written."""
        if self.site.before:
            return self.site.module.register_forward_pre_hook(self._given, with_kwargs=True, prepend=True)
        return self.site.module.register_forward_hook(self._returned, prepend=True)

    def _given(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states = self._edited(first_tensor(args, kwargs))
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def _returned(self, _: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002
        states = self._edited(output_tensor(output))
        return states if isinstance(output, Tensor) else (states, *output[1:])

    def _edited(self, states: StreamStates) -> StreamStates:
        self.ran = True
        rows, starts = self.places.rows, self.places.starts
        for number, edit in enumerate(self.edits):
            if edit.at is None:
                states = edit.applied(states, torch.arange(len(states)))
            elif rows is not None and starts is not None:
                states = self._edited_at(states, edit, edit.at, rows, starts)
            else:
                continue
            self.acted.add(number)
        return states

    def _edited_at(
        self,
        states: StreamStates,
        edit: Edit,
        at: tuple[int, ...] | str,
        rows: Int[Tensor, " row"],
        starts: Int[Tensor, " row"],
    ) -> StreamStates:
        states, texts = states.clone(), [self.places.texts[row] for row in rows.tolist()]
        if not isinstance(at, str):
            which = torch.arange(len(states), device=states.device)[:, None]
            ends = starts.to(states.device) + torch.tensor([len(text.ids) for text in texts], device=states.device)
            tokens = ends[:, None] + torch.tensor(at, device=states.device)
            states[which, tokens] = edit.applied(states[which, tokens], rows)
            return states
        # Prompts have different numbers of tokens of a class.
        for row, (text, start) in enumerate(zip(texts, starts.tolist(), strict=True)):
            own = torch.tensor(text.group(at), device=states.device) + start
            states[row, own] = edit.applied(states[row, own][None], rows[row : row + 1])[0]
        return states


def _check_all_acted(adapter: Adapter, edits: Sequence[Edit], writers: Sequence[_Writer]) -> None:
    """Every edit acted somewhere, and no layer of one was passed over below the highest that ran."""
    acted = {id(writer.edits[number]) for writer in writers for number in writer.acted}
    idle = next((edit for edit in edits if id(edit) not in acted), None)
    if idle is not None:
        raise ModelError(
            f"{type(idle).__name__}: no forward reached layers {list(idle.at_layers(adapter.n_layers))} at its places, "
            "so nothing was edited."
        )
    ran = [writer.ran for writer in writers]
    if False in ran and True in ran[ran.index(False) :]:
        raise ModelError(
            f"{type(adapter.model).__name__}: an edited layer did not run though a higher one did; this model can not "
            "be edited."
        )
