"""The residual stream while a model answers: one state per token, as the token is chosen."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, UsageError
from interp.models.anatomy import Anatomy, Watcher, accepts, dissect, first_tensor, output_tensor, watching
from interp.models.encoding import Encoder
from interp.models.hooks import HooksAdapter
from interp.models.pictures import CROSSING, Picture, picture_inputs, showing, tokenizer_of
from interp.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer and the state that chose it.

    Attributes:
        token: the vocabulary id; the last one of a finished answer is the token that ends it.
        text: what this token adds to the answer, control tokens left out. It is empty while a character is
            unfinished, which then comes with a later token.
        state: (d_model,) float32, on the CPU: the residual state of one layer at the position whose logits chose the
            token. For the first token that is t_post, the last token of the prompt.
    """

    token: int
    text: str
    state: Float[Tensor, " d_model"]


def stream(
    model: HooksAdapter | nn.Module, processor: Any, prompt: Prompt, *, layer: int, max_new_tokens: int = 64
) -> Generator[Step, None, None]:
    """Answers a prompt greedily and yields every token at once, with the state it was chosen from.

    The tokens are those of `interp.models.generation.respond`, unless the model's generation settings ask for more
    than the most likely token (a list of forbidden words, say), which this does not heed. Keys and values are kept,
    so a token costs a forward pass of one token; a model that keeps none reads the whole text anew. No hook is in
    place between two steps: the consumer may use the model, stop early or fail.

    Args:
        model: a causal or vision-language model of transformers, or the adapter of one.
        processor: its tokenizer, or the processor of a model that is to see pictures.
        prompt: what to answer, encoded as for a harvest.
        layer: 0 for the embedding, i for the state after block i.
        max_new_tokens: most tokens of the answer, at least 1.

    Returns:
        The steps; at least one, since an answer that is empty still has the token that ends it.

    Raises:
        UsageError: for a layer that the model does not have, or fewer than one token.
        ModelError: for a model whose blocks can not be found, or a prompt that can not be encoded.
    """
    module = model.model if isinstance(model, HooksAdapter) else model
    anatomy = model.anatomy if isinstance(model, HooksAdapter) else dissect(module)
    if not 0 <= layer <= len(anatomy.blocks):
        raise UsageError(f"layer {layer}: this model has layers 0 to {len(anatomy.blocks)}.")
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens {max_new_tokens}: an answer has at least 1 token.")
    (asked,) = Encoder(processor).encode([prompt.unanswered], ["t_post"])
    return _steps(_Reader(module, anatomy, layer, asked.picture), tokenizer_of(processor), asked.ids, max_new_tokens)


def _steps(reader: "_Reader", tokenizer: Any, ids: Sequence[int], most: int) -> Generator[Step, None, None]:
    ends = _end_tokens(reader.model)
    text, tokens = "", list[int]()
    for count in range(1, most + 1):
        token, state = reader.read(ids if not tokens else tokens[-1:])
        tokens.append(token)
        last = token in ends or count == most
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        # A token may hold only some bytes of a character, which decode to U+FFFD until the rest is there.
        ready = whole if last else whole.rstrip("\ufffd")
        yield Step(token, ready[len(text) :], state)
        text = max(text, ready, key=len)
        if last:
            return


def _end_tokens(model: Any) -> set[int]:
    """The tokens that end an answer: those that the model's own generation stops at."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)


class _Reader:
    """A text that a model has read so far, one piece after the other."""

    def __init__(self, model: Any, anatomy: Anatomy, layer: int, picture: Picture | None) -> None:
        self.model, self.anatomy, self.layer, self.picture = model, anatomy, layer, picture
        self.read_so_far: list[int] = []
        self.cache: Any = None
        self.places: Tensor | None = None
        self.crossing = False

    @torch.no_grad()
    def read(self, ids: Sequence[int]) -> tuple[int, Tensor]:
        """Reads more tokens; the most likely next one, and the state (d_model,) at the last position."""
        self.read_so_far += ids
        new = self.read_so_far if self.cache is None else list(ids)
        device = next(self.model.parameters()).device
        states: list[Tensor] = []
        with watching([self._watcher(states)]), showing([self.picture]):
            output = self.model(
                **self._seen(new),
                input_ids=torch.tensor([new], device=device),
                attention_mask=torch.ones(1, len(self.read_so_far), dtype=torch.long, device=device),
                use_cache=True,
                **({} if self.cache is None else {"past_key_values": self.cache}),
                **({"logits_to_keep": 1} if accepts(self.model, "logits_to_keep") else {}),
            )
        if len(states) != 1:
            raise ModelError(f"layer {self.layer} ran {len(states)} times in one forward; its states can not be read.")
        if not self.crossing:  # else every token looks at the picture anew, and is to be told at which part
            self.cache = getattr(output, "past_key_values", None)
        return int(output.logits[0, -1].argmax()), states[0]

    def _seen(self, new: Sequence[int]) -> dict[str, Tensor]:
        """What goes with the picture, and places of tokens for a model that does not count one by one behind it."""
        if self.cache is None:
            ids = torch.tensor([new])
            inputs = picture_inputs(self.model, [self.picture], ids, torch.ones_like(ids))
        else:
            inputs = {} if self.places is None else {"position_ids": self.places[..., -1:] + 1}
        self.places, self.crossing = inputs.get("position_ids"), CROSSING in inputs
        return inputs

    def _watcher(self, states: list[Tensor]) -> tuple[nn.Module, Watcher]:
        """Layer 0 is what the first block was given, layer i what block i returned."""

        def take(state: Tensor) -> None:
            states.append(state[0, -1].detach().float().cpu())

        if self.layer == 0:
            return self.anatomy.blocks[0], lambda args, kwargs, _: take(first_tensor(args, kwargs))
        return self.anatomy.blocks[self.layer - 1], lambda *call: take(output_tensor(call[-1]))
