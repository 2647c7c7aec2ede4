"""Where decoder, blocks, final norm and head are, asked of the model and checked by running it."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.lens.readout import Readout

Watcher = Callable[[tuple[Any, ...], dict[str, Any], Any], None]


class StopForward(Exception):
    """Ends a forward pass early; raised by a watcher and caught where the forward was started."""


@contextmanager
def watching(watchers: Sequence[tuple[nn.Module, Watcher]]) -> Iterator[None]:
    """Calls each watcher with (args, kwargs, output) after its module ran; no hook outlives the block.

    This is the only place in the product that registers a hook for reading.
    """
    handles = []
    try:
        for module, watcher in watchers:

            def hook(_: nn.Module, args: Any, kwargs: Any, output: Any, watcher: Watcher = watcher) -> None:
                watcher(args, kwargs, output)

            handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a block was called with, by place or by name."""
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state


def output_tensor(output: Any) -> Tensor:
    """The hidden states that a block returned, alone or first in a tuple."""
    state: Tensor = output if isinstance(output, Tensor) else output[0]
    return state


@dataclass(frozen=True, slots=True)
class Site:
    """Where the state of one layer passes through a running model, to be read or written.

    Attributes:
        module: a module that runs once in every forward.
        before: whether the state is what the module is given, else what it returns.
    """

    module: nn.Module
    before: bool


def sites_of(blocks: nn.ModuleList) -> list[Site]:
    """The sites of all layers, in order: layer 0 is what the first block is given, layer i what block i returns."""
    return [Site(blocks[0], before=True), *(Site(block, before=False) for block in blocks)]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a Hugging Face model that the product reads.

    Attributes:
        decoder: the language model without its head.
        blocks: its transformer blocks, in order.
        tail: what the decoder runs after the last block: the final norm, for some models a projection too.
        head: the output embedding.
        text_config: the configuration of the language model.
    """

    decoder: nn.Module
    blocks: nn.ModuleList
    tail: tuple[nn.Module, ...]
    head: nn.Linear
    text_config: Any

    @property
    def logit_scale(self) -> float:
        """The factor on the logits: Granite divides by ``logits_scaling``, Cohere multiplies by ``logit_scale``."""
        config = self.text_config
        return float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )

    @property
    def softcap(self) -> float | None:
        """The bound that the logits are squashed to; None for none."""
        return getattr(self.text_config, "final_logit_softcapping", None)


def dissect(model: Any) -> Anatomy:
    """Finds the parts of a causal language model through transformers' own accessors.

    Raises:
        ModelError: when the decoder has no single list of as many blocks as the configuration says, or no head.
    """
    text_config = model.config.get_text_config()
    decoder = model.get_decoder()
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m) == text_config.num_hidden_layers]
    head = model.get_output_embeddings()
    if len(lists) != 1 or head is None:
        raise ModelError(
            f"{type(model).__name__}: {type(decoder).__name__} has {len(lists)} lists of "
            f"{text_config.num_hidden_layers} blocks and {'no' if head is None else 'a'} head; "
            "only decoders with one list of blocks and an output embedding can be read."
        )
    return Anatomy(decoder, lists[0], _tail(decoder, lists[0]), head, text_config)


def _tail(decoder: nn.Module, blocks: nn.ModuleList) -> tuple[nn.Module, ...]:
    """The children of the decoder that run after its last block, found by running two tokens."""
    ran: list[nn.Module] = []
    children = [m for m in decoder.children() if m is not blocks]
    watchers = [(m, lambda *_, m=m: ran.append(m)) for m in (*children, blocks[-1])]
    device = next(decoder.parameters()).device
    with torch.no_grad(), watching(watchers):
        decoder(input_ids=torch.tensor([[0, 1]], device=device), use_cache=False)
    return tuple(ran[ran.index(blocks[-1]) + 1 :])


def readout_of(model: nn.Module, anatomy: Anatomy) -> Readout:
    """The model's own readout, checked against its logits on two tokens.

    Raises:
        ModelError: when final norm, head, scale and softcap do not give the model's logits.
    """
    tail = nn.Sequential(*(copy.deepcopy(m) for m in anatomy.tail)).float()
    readout = Readout(
        norm=tail,
        weight=anatomy.head.weight.detach(),
        bias=None if anatomy.head.bias is None else anatomy.head.bias.detach(),
        scale=anatomy.logit_scale,
        softcap=anatomy.softcap,
    )
    _check_readout(model, anatomy, readout)
    return readout


def _check_readout(model: Any, anatomy: Anatomy, readout: Readout) -> None:
    """Compares with the model's logits twice: its own modules, which must agree to rounding, and the readout.

    The readout computes in float32, so in a 16-bit model it may differ by far more than a wrong softcap would; only
    the first comparison shows that the parts are the right ones.
    """
    seen: list[Tensor] = []
    device = next(model.parameters()).device
    last = (anatomy.blocks[-1], lambda *call: seen.append(output_tensor(call[-1])))
    with torch.no_grad(), watching([last]):
        logits = model(input_ids=torch.tensor([[0, 1, 2]], device=device), use_cache=False).logits.float()
    with torch.no_grad():
        state = seen[0]
        for part in anatomy.tail:
            state = part(state)
        own = anatomy.head(state).float() * readout.scale
        if readout.softcap is not None:
            own = readout.softcap * torch.tanh(own / readout.softcap)
    ulp = torch.finfo(state.dtype).eps * logits.abs().max().item()
    for found, allowed in ((own, 4 * ulp), (readout.logits(readout.normed(seen[0])), 32 * ulp)):
        gap = (found - logits).abs().max().item()
        if not gap <= allowed:
            raise ModelError(
                f"{type(model).__name__}: reading its last state through final norm, head, scale and softcap "
                f"misses its logits by {gap:.3g} (allowed {allowed:.3g}); this model's output path is not known."
            )


def accepts(module: nn.Module, argument: str) -> bool:
    """Whether the forward of a module takes an argument of this name."""
    return argument in inspect.signature(module.forward).parameters
