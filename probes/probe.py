"""A probe in memory: its numbers, what it is of, and what it makes of states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.cache.identity import Identity
from interp.errors import ModelMismatch

COMPARED = (
    "runtime.dtype", "model.weights", "model.adapter", "model.config", "model.tokenizer", "model.chat_template",
)  # fmt: skip
"""The fields of a cache's identity that a model must share with the one the probe was made for, in this order."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of refusal for one layer and position of one model.

    Attributes:
        record: what ``probe.json`` says; `probes.record` writes it.
        tensors: its numbers, float32: ``direction`` and ``bias``, for an MLP ``hidden.weight`` and ``hidden.bias`` of
            a layer with ReLU before them. They take states as stored, no scaler is needed.
        place: where it was read from, for messages.
    """

    record: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    place: str = "probe"

    @property
    def estimator(self) -> str:
        """How it was fitted, such as logistic."""
        return str(self.record["estimator"])

    @property
    def layer(self) -> int:
        """The layer whose states it reads."""
        return int(self.record["layer"])

    @property
    def position(self) -> str:
        """The position whose states it reads."""
        return str(self.record["position"])

    @property
    def d_model(self) -> int:
        """The width of these states."""
        return int(self.record["d_model"])

    @property
    def threshold(self) -> float:
        """The score above which it calls a refusal."""
        return float(self.record["threshold"]["value"])

    def score(self, states: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
        """Log-odds of a refusal; the probability is ``torch.sigmoid`` of it.

        Args:
            states: residuals as stored, any float dtype, at the probe's layer and position.

        Returns:
            float32 on the CPU, computed in float64 so that a row's score does not depend on the rows beside it; NaN
            for a state that is not finite.

        Raises:
            ModelMismatch: for states of another width.
        """
        if states.shape[1] != self.d_model:
            raise ModelMismatch(self.place, "d_model", self.d_model, states.shape[1])
        return score_states(self.tensors, states)

    def fired(self, scores: Float[Tensor, " row"]) -> Bool[Tensor, " row"]:
        """Whether scores are above the threshold; False for NaN."""
        return scores > self.threshold

    def require(self, offered: ActivationCache | Identity, layer: int, position: str) -> None:
        """Checks that states come from where the probe may be used.

        Args:
            offered: the cache they are in, or the identity of the model that gives them.
            layer: their layer.
            position: their position.

        Raises:
            ModelMismatch: naming the first field that differs: how the model is run, its weights, adapter,
                configuration, tokenizer or chat template, then d_model, layer and position, be they another's or
                not stored in the cache.
        """
        identity: Identity = offered.identity if isinstance(offered, ActivationCache) else offered
        for field, expected in self.compared.items():
            self._same(field, expected, identity.get(field))
        self._same("layer", self.layer, layer)
        self._same("position", self.position, position)
        if isinstance(offered, ActivationCache):
            self._same("d_model", self.d_model, offered.d_model)
            if layer not in offered.layers:
                raise ModelMismatch(self.place, "layer", layer, list(offered.layers))
            if position not in offered.positions:
                raise ModelMismatch(self.place, "position", position, list(offered.positions))

    @property
    def compared(self) -> dict[str, Any]:
        """The digests that must agree; for a model known by name only, the name."""
        model = self.record["model"]
        known = {field: model[field] for field in COMPARED if field in model}
        return known if "model.weights" in known else {"model.name": model.get("model.name"), **known}

    def _same(self, field: str, expected: object, found: object) -> None:
        if expected != found:
            raise ModelMismatch(self.place, field, expected, found)


def score_states(tensors: Mapping[str, Tensor], states: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
    """What the tensors of a probe make of states: float32 on the CPU, computed in float64."""
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    read = states.detach().cpu().double()
    if "hidden.weight" in wide:
        read = torch.relu(read @ wide["hidden.weight"].mT + wide["hidden.bias"])
    return (read @ wide["direction"] + wide["bias"]).float()
