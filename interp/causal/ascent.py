"""Forwards under edits of ever higher layers, each of which begins where the edit is.

An edit of one layer changes nothing below it. Where the same tokens are read under edits of one layer after the other,
upwards, what lies below the last one was computed before and is handed on instead of being computed again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from interp.causal.effects import states_at
from interp.models.adapter import Adapter
from interp.prompts.prompt import Prompt


@dataclass(slots=True, eq=False)
class Ascent:
    """What a model gave for batches of tokens at the highest layer below which nothing was edited so far.

    Attributes:
        adapter: the model; its weights must not change in the meantime.
        resumes: whether its forwards can begin in the middle; else all are run whole.
    """

    adapter: Adapter
    resumes: bool = True
    _known: dict[bytes, tuple[int, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, adapter: Adapter, prompts: Sequence[Prompt]) -> "Ascent":
        """An ascent from the bottom, after a trial on two prompts whether forwards that begin in the middle end right.

        Args:
            adapter: any backend.
            prompts: at least one; of those that will be read.
        """
        found, some, top = cls(adapter), prompts[:2], [adapter.n_layers]
        whole = states_at(adapter, some, top, (-1,))
        for layer in (1, adapter.n_layers // 2, adapter.n_layers // 2):
            with found.below(layer):
                again = states_at(adapter, some, top, (-1,))
        found.resumes = bool(found._known) and torch.equal(again, whole)
        found._known.clear()
        return found

    @contextmanager
    def below(self, layer: int) -> Iterator[None]:
        """Forwards inside run no block up to ``layer`` twice for the same tokens; no trace of it outlives the context.

        Only forwards over text without kept keys and values are shortened.

        Args:
            layer: at or below the lowest that is edited inside; descending layers are right too, but save nothing.
        """
        if not self.resumes:
            yield
            return
        now: list[bytes | None] = [None]

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            now[0] = _tokens(args, kwargs)

        def block(number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                if now[0] is None:
                    return forward(*args, **kwargs)
                reached, states = self._known.get(now[0], (0, None))
                if number <= reached <= layer:
                    return states
                output = forward(*args, **kwargs)
                if number == layer > reached:
                    self._known[now[0]] = (layer, output)
                return output

            return run

        decoder: Any = self.adapter.model.get_decoder()  # type: ignore[operator]
        handle = decoder.register_forward_pre_hook(look, with_kwargs=True)
        blocks = [site.module for site in self.adapter.sites[1 : layer + 1]]
        try:
            with replaced_forwards(blocks, [block(i, b.forward) for i, b in enumerate(blocks, start=1)]):
                yield
        finally:
            handle.remove()


@contextmanager
def replaced_forwards(modules: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Lets modules run something else inside the context; their hooks see what that returns."""
    own = [vars(module).get("forward") for module in modules]
    try:
        for module, forward in zip(modules, forwards, strict=True):
            module.forward = forward
        yield
    finally:
        for module, former in zip(modules, own, strict=True):
            vars(module).pop("forward", None)
            if former is not None:
                module.forward = former


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """What a forward reads, as a digest; None where it reads something else than whole texts."""
    ids = args[0] if args else kwargs.get("input_ids")
    if ids is None or kwargs.get("past_key_values") is not None or kwargs.get("use_cache") is not False:
        return None
    digest = hashlib.sha256(str(tuple(ids.shape)).encode())
    for part in (ids, kwargs.get("attention_mask")):
        if isinstance(part, Tensor):
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.digest()
