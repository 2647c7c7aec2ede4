"""A LLaVA-class model whose pictures are given as vision features: projector and language model, with gradients.

The vision tower does not run. What stays the same for every picture, the tokens of the prompt before it, is computed
once as long as the language model is frozen.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.anatomy import dissect, first_tensor, output_tensor, watching

PROJECTOR = "multi_modal_projector"
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Rows:
    """Prompts with answers, padded on the right.

    Attributes:
        ids: (row, token) vocabulary ids; at image tokens the model's own image token.
        mask: (row, token) 1 for a token, 0 for padding.
        image: (row, token) the tokens that become a picture, equally many in every row.
        targets: (row, token) the token that the state at this place is to predict, or -100 for none.
        features: (row, patch, feature) what the vision tower gives the projector.
        shared: how many leading tokens all rows have in common; none of them is an image token.
    """

    ids: Int[Tensor, "row token"]
    mask: Int[Tensor, "row token"]
    image: Bool[Tensor, "row token"]
    targets: Int[Tensor, "row token"]
    features: Float[Tensor, "row patch feature"]
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a forward pass leaves, in the graph.

    Attributes:
        states: by layer (row, token, d_model) residual states behind the shared tokens, compute dtype.
        losses: (target,) cross-entropy in nats of every token to be predicted, float32, row by row.
    """

    states: dict[int, Float[Tensor, "row token d_model"]] = field(repr=False)
    losses: Float[Tensor, " target"] = field(repr=False)


def projector_of(model: nn.Module) -> nn.Module:
    """The projector of a LLaVA-class model.

    Raises:
        ModelError: when the model has none, or more than one.
    """
    found: list[nn.Module] = [m for name, m in model.named_modules() if name.rpartition(".")[2] == PROJECTOR]
    if len(found) != 1:
        kind = type(model).__name__
        raise ModelError(f"{kind} has {len(found)} modules called {PROJECTOR}; LLaVA-class models have one.")
    return found[0]


class ProjectedModel:
    """Runs projector and language model of a LLaVA-class model on vision features.

    Attributes:
        model: of transformers; evaluation mode.
        projector: its ``multi_modal_projector``, in float32 while the language model has a dtype of its own.
        image_id: vocabulary id of the image token.
        n_layers: blocks of the language model.
        frozen: whether nothing but the projector is trained, so that shared tokens are computed once.
    """

    def __init__(self, model: Any, *, frozen: bool = True) -> None:
        self.model, self.frozen = model.eval(), frozen
        self.anatomy = dissect(model)
        self.projector = projector_of(model)
        self._dtype = next(self.projector.parameters()).dtype
        self.projector.float()
        self.image_id = _image_id(model.config)
        self.n_layers = len(self.anatomy.blocks)
        self.d_model: int = self.anatomy.text_config.hidden_size
        self._prefix: tuple[tuple[int, ...], Any] = ((), None)

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return next(self.projector.parameters()).device

    def release(self) -> None:
        """Gives the projector its own dtype again, for runs on pictures."""
        self.projector.to(self._dtype)

    def run(self, rows: Rows, layers: Sequence[int]) -> Seen:
        """One forward pass.

        Args:
            rows: on the device of the model.
            layers: whose states are wanted, ascending; layer 0 is the input of the first block.

        Raises:
            ModelError: when the projector does not give one state per image token.
        """
        shared = rows.shared if self.frozen else 0
        embedded = self._embedded(rows)[:, shared:]
        states: dict[int, Tensor] = {}
        sites = [(self.anatomy.blocks[max(i - 1, 0)], i) for i in layers]
        watchers = [
            (block, lambda args, kwargs, out, i=i: states.update({i: _state(i, args, kwargs, out)}))
            for block, i in sites
        ]
        with watching(watchers):
            found = self.anatomy.decoder(
                inputs_embeds=embedded,
                attention_mask=rows.mask,
                position_ids=(rows.mask.cumsum(-1) - 1).clamp(min=0)[:, shared:],
                past_key_values=self._kept(rows.ids[0, :shared], len(rows.ids)) if shared else None,
                use_cache=bool(shared),
            )
        return Seen(states, self._losses(found.last_hidden_state, rows.targets[:, shared:]))

    def _embedded(self, rows: Rows) -> Float[Tensor, "row token d_model"]:
        """Token embeddings, with the projected features in the place of the picture."""
        words: Tensor = self.model.get_input_embeddings()(rows.ids)
        projected: Tensor = self.projector(rows.features.float()).to(words.dtype)
        places, given = int(rows.image.sum()), projected.shape[:-1].numel()
        if places != given:
            raise ModelError(f"{given} projected states for {places} image tokens; this is no LLaVA-class projector.")
        return words.masked_scatter(rows.image[..., None], projected)

    def _losses(self, last: Tensor, targets: Int[Tensor, "row token"]) -> Float[Tensor, " target"]:
        wanted = targets != IGNORED
        logits = self.anatomy.head(last[wanted]).float() * self.anatomy.logit_scale
        if (cap := self.anatomy.softcap) is not None:
            logits = cap * torch.tanh(logits / cap)
        return nn.functional.cross_entropy(logits, targets[wanted], reduction="none")

    @torch.no_grad()
    def _kept(self, ids: Int[Tensor, " token"], rows: int) -> Any:
        """Keys and values of the shared tokens, computed once at batch size 1 and repeated for every row."""
        from transformers import DynamicCache

        key = tuple(ids.tolist())
        if self._prefix[0] != key:
            cache = DynamicCache(config=self.anatomy.text_config)
            self.anatomy.decoder(input_ids=ids[None], past_key_values=cache, use_cache=True)
            self._prefix = (key, cache)
        repeated = copy.deepcopy(self._prefix[1])
        repeated.reorder_cache(torch.zeros(rows, dtype=torch.long, device=ids.device))
        return repeated


def _state(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
    return first_tensor(args, kwargs) if layer == 0 else output_tensor(output)


def _image_id(config: Any) -> int:
    found = next(
        (i for n in ("image_token_id", "image_token_index") if (i := getattr(config, n, None)) is not None), None
    )
    if found is None:
        raise ModelError(f"{config.model_type}: its configuration names no image token; LLaVA-class models have one.")
    return int(found)
