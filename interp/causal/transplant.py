"""Transplants: the states of one run in the place of another's, class by class and layer by layer.

A run with a picture and one with its caption ask the same thing; only the slot differs. What stands in the slot of one
can be put into the slot of the other, and so can the instruction and t_post behind it.
"""

from collections.abc import Sequence

from interp.causal.class_patch import ClassPatch, laid
from interp.causal.effects import encoded_prompts, states_of
from interp.errors import UsageError
from interp.models.adapter import Adapter
from interp.prompts.prompt import Prompt

COUNTERPARTS = {"image": "caption", "caption": "image"}


def transplants(
    adapter: Adapter,
    into: Sequence[Prompt],
    source: Sequence[Prompt],
    layers: Sequence[int],
    *,
    at: str,
    taken: str = "",
    how: str = "nearest",
    batch_size: int = 32,
) -> tuple[ClassPatch, ...]:
    """Patches that write the states of other prompts into prompts, one patch per layer.

    Args:
        adapter: any backend that reads the prompts.
        into: the prompts that are to be patched.
        source: the prompts that states are taken from, one for each of ``into``.
        layers: ascending, 0 to L.
        at: the class of tokens that is replaced, or t_inst or t_post.
        taken: the class that the states are taken from; when not given the same, but ``caption`` for ``image`` and the
            other way round.
        how: how states are laid on another number of tokens, see `interp.causal.class_patch`.
        batch_size: how many prompts run at once.

    Raises:
        UsageError: for different numbers of prompts, and for a prompt without a token of its class.
    """
    if len(into) != len(source):
        raise UsageError(f"{len(source)} prompts to take states from for {len(into)}; give one each.")
    wanted = [len(e.group(at)) for e in encoded_prompts(adapter, into)]
    found = states_of(adapter, source, layers, taken or COUNTERPARTS.get(at, at), batch_size=batch_size)
    lacking = next((prompt.id for prompt, n in zip(into, wanted, strict=True) if not n), None)
    if lacking is not None:
        raise UsageError(f"prompt {lacking!r} has no token of the class {at!r}.")
    return tuple(
        ClassPatch(tuple(laid(own[i], n, how) for own, n in zip(found, wanted, strict=True)), layer, at)
        for i, layer in enumerate(layers)
    )
