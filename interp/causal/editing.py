"""Writing into the forward pass: the only place of the product that does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.causal.edits import Edit, Patch, SubspacePatch
from interp.errors import ModelError, UsageError
from interp.models.adapter import Adapter
from interp.models.anatomy import Site, first_tensor, output_tensor

StreamStates = Float[Tensor, "row token d_model"]


@contextmanager
def editing(
    adapter: Adapter, edits: Sequence[Edit], texts: Sequence[Sequence[int]] = (), *, tail: int | None = None
) -> Iterator[None]:
    """Edits the residual stream in every forward inside the block, whoever starts it; no hook outlives the block.

    That is `Adapter.states` and everything that runs ``adapter.model``: answers, family likelihoods, logits. States
    that are read inside the block are those after the edits. Edits of one layer act in the order given.

    Edits at places act where a prompt is read, not on tokens that are generated after it with kept keys and values.
    Each row of a forward is recognised by the prompt that its tokens begin with, so neither the order of the rows nor
    the side of the padding matters, nor what follows the prompt.

    Args:
        adapter: any backend. It keeps and reuses no shared tokens inside the block.
        edits: what to write; none changes nothing.
        texts: vocabulary ids of the prompts, in the order of the rows of patches; needed by edits at places, which
            refuse a forward of any other text.
        tail: every forward inside the block reads only so many last tokens of all texts, a row each in their order,
            behind kept keys and values; None where forwards read texts from their beginnings.

    Raises:
        UsageError: for layers the model does not have, vectors of another width, places before the start of a prompt
            or of its tail, patches with another number of rows than texts, and texts that can not be told apart.
        ModelError: when a forward inside the block runs none of the prompts, and at the end of the block when an edit
            did not act, or a layer of it was passed over.
    """
    _check(adapter, edits, texts)
    if tail is not None and any(edit.at is None or min(edit.at) < -tail for edit in edits):
        raise UsageError(f"an edit acts before the last {tail} tokens, which are all that is read anew.")
    places = _Places({tuple(text): row for row, text in enumerate(texts)}, None if tail is None else (len(texts), tail))
    writers = [_Writer(adapter.sites[i], edits_of, places) for i, edits_of in sorted(_by_layer(adapter, edits).items())]
    handles, shares = [], adapter.shares
    try:
        if any(edit.at is not None for edit in edits):
            decoder = adapter.model.get_decoder()  # type: ignore[operator]
            handles.append(decoder.register_forward_pre_hook(places.find, with_kwargs=True))
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
    """Where the prompts end in the forward that runs now.

    Attributes:
        texts: row of every prompt, by its vocabulary ids.
        tails: how many rows of how many last tokens every forward reads; None where it reads whole texts.
        rows: (row) which prompt each row of the forward begins with; None while tokens are added to prompts read.
        ends: (row) the token index behind that prompt.
    """

    texts: dict[tuple[int, ...], int]
    tails: tuple[int, int] | None = None
    rows: Int[Tensor, " row"] | None = None
    ends: Int[Tensor, " row"] | None = None

    def find(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Looks at what the decoder is given, before it runs."""
        ids = args[0] if args else kwargs.get("input_ids")
        mask = kwargs.get("attention_mask")
        if ids is None or not (mask is None or mask.ndim == 2):
            raise ModelError("edits at places need a forward over token ids and a mask of (row, token).")
        if self.tails is not None:
            if tuple(ids.shape) != self.tails:
                raise ModelError(f"a forward of {tuple(ids.shape)} tokens, but edited are {self.tails} last tokens.")
            self.rows = torch.arange(len(ids), device=ids.device)
            self.ends = torch.full_like(self.rows, self.tails[1])
            return
        if _continues(ids, mask, kwargs.get("past_key_values")):
            self.rows = self.ends = None
            return
        mask = torch.ones_like(ids) if mask is None else mask
        found = [self._row(tokens[keep], keep) for tokens, keep in zip(ids.cpu(), mask.cpu().bool(), strict=True)]
        self.rows, self.ends = torch.tensor(found, device=ids.device).T

    def _row(self, tokens: Int[Tensor, " token"], keep: Tensor) -> tuple[int, int]:
        """Which prompt a text begins with, and the index behind it; the longest one where several fit."""
        text = tuple(tokens.tolist())
        for length in sorted({len(known) for known in self.texts}, reverse=True):
            row = self.texts.get(text[:length])
            if row is not None and length <= len(text):
                return row, int(keep.long().argmax()) + length
        raise ModelError(
            f"a text of {len(text)} tokens begins with none of the {len(self.texts)} prompts that are edited; give "
            "`editing` all prompts that run inside it."
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
        rows, ends = self.places.rows, self.places.ends
        for number, edit in enumerate(self.edits):
            if edit.at is None:
                states = edit.applied(states, torch.arange(len(states)))
            elif rows is not None and ends is not None:
                which = torch.arange(len(states), device=states.device)[:, None]
                at = ends.to(states.device)[:, None] + torch.tensor(edit.at, device=states.device)
                written = edit.applied(states[which, at], rows)
                states = states.clone()
                states[which, at] = written
            else:
                continue
            self.acted.add(number)
        return states


def _check(adapter: Adapter, edits: Sequence[Edit], texts: Sequence[Sequence[int]]) -> None:
    for edit in edits:
        name = type(edit).__name__
        beyond = [layer for layer in edit.at_layers(adapter.n_layers) if not 0 <= layer <= adapter.n_layers]
        if beyond:
            raise UsageError(f"{name}: layers {beyond} do not exist; this model has 0 to {adapter.n_layers}.")
        if edit.width != adapter.d_model:
            raise UsageError(
                f"{name}: made for states of width {edit.width}, but the model's are {adapter.d_model} wide."
            )
        if edit.at is not None:
            _check_texts(edit, name, texts)
        if isinstance(edit, Patch | SubspacePatch) and len(edit.values) != len(texts):
            raise UsageError(f"{name}: {len(edit.values)} rows of values for {len(texts)} prompts; give one each.")
    if any(isinstance(edit, Patch | SubspacePatch) for edit in edits) and len(set(map(tuple, texts))) < len(texts):
        raise UsageError("patches tell prompts apart by their tokens, but one stands there twice; keep one of them.")


def _check_texts(edit: Edit, name: str, texts: Sequence[Sequence[int]]) -> None:
    if not texts:
        raise UsageError(f"{name}: at = {edit.at} counts from the end of the prompt; give `editing` the prompts.")
    depth = -min(edit.at or ())
    short = next((row for row, text in enumerate(texts) if len(text) < depth), None)
    if short is not None:
        raise UsageError(f"{name}: place {-depth}, but prompt {short} has only {len(texts[short])} tokens.")
    ordered = sorted(set(map(tuple, texts)))
    for this, following in pairwise(ordered):
        if following[: len(this)] == this:
            raise UsageError(f"{name}: one prompt begins with all of another, {list(this)}; its end is not known.")


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
