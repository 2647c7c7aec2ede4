"""The tuned lens (Belrose et al. 2023, arXiv 2303.08112): each layer is translated before it is read.

A logit lens reads early layers in the basis of the last, in which they are not written. The tuned lens learns an
affine translator ``h + h @ A + b`` per layer from cached states, so that the model's own readout says of the
translated state what it says of the final one. Translated states go wherever states go: into `interp.lens.logit_lens`,
which then gives entropy and the divergence from the final layer as ever.

Departures from the paper: a ridge start in closed form, early stopping, and the identity wherever held-out rows are
not read better. A translator is a model of its own: it may read from a state what the network never reads there, so a
layer at which it sees a refusal is one at which the refusal is decodable, not one that is used.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.axes import States
from interp.errors import UsageError
from interp.lens.lens_file import read_lens, write_lens
from interp.lens.readout import Readout
from interp.lens.translator import Stage, divergences, fit_translator, identity, target

HELD = 0.15
"""Share of the groups that chooses between fits, and again that judges them."""
CHOOSERS = 160
"""Most rows that choose: each is read at every penalty and every epoch, which is most of the time."""


@dataclass(frozen=True, slots=True)
class TunedLens:
    """A translator for every layer.

    Attributes:
        layers: the layer numbers, ascending; the last one is what the others are translated to.
        matrices: (layer, d_model, d_model) float32, A of ``h + h @ A + b``; zeros where nothing is translated.
        biases: (layer, d_model) float32, b.
        stages: per layer what its translator is: "ridge", "descent" (that, then gradient steps), or "identity" where
            neither reads held-out rows better than the logit lens, and at the last layer.
        kl_before: per layer the mean KL(final || logit lens) of the judging rows, in nats.
        kl_after: the same through the translator; never more than ``kl_before``.
        rows: how many rows were fitted, chose, and judged; no group is in two of these.
        model: what the model is, by digests; see `interp.models.identity.ModelIdentity`.
    """

    layers: tuple[int, ...]
    matrices: Float[Tensor, "layer d_model d_model"]
    biases: Float[Tensor, "layer d_model"]
    stages: tuple[Stage, ...]
    kl_before: tuple[float, ...]
    kl_after: tuple[float, ...]
    rows: tuple[int, int, int]
    model: dict[str, str]

    @classmethod
    def fit(
        cls,
        states: States,
        layers: Sequence[int],
        readout: Readout,
        groups: Sequence[str],
        *,
        model: Mapping[str, str],
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> "TunedLens":
        """Fits every layer to the last one given.

        Args:
            states: (n, layer, d_model) states at any positions, stacked by the caller; a lens is good for positions
                of the kinds it was fitted on.
            layers: their layer numbers, ascending; the last one has to be the model's final layer for the
                divergences to be those from the model's output.
            readout: the model's own.
            groups: (n,) the groups of the rows; all rows of a prompt, of twins and of paraphrases share one.
            model: what the model is, as ``asdict(adapter.identity)``; a saved lens is refused to any other.
            seed: of the split and of descent.
            progress: called with (layers done, layers in all).

        Raises:
            UsageError: for sizes that do not match, layers that do not ascend, states that are not finite, or fewer
                than three groups.
        """
        _require(states, layers, groups)
        device = readout.weight.device
        parts = [torch.tensor(rows, device=states.device) for rows in split_groups(groups, seed=seed)]
        fitted, chosen, judged = ([states[p, i].float().to(device) for i in range(len(layers))] for p in parts)
        goal = target(fitted[-1], chosen[-1], readout)
        found, before, after = [], [], []
        for i in range(len(layers) - 1):
            fit = fit_translator(fitted[i], chosen[i], goal, readout, seed=seed)
            kls = divergences([judged[i], fit(judged[i])], judged[-1], readout).mean(0).tolist()
            # Not "greater or equal", which is false for NaN.
            better = kls[1] < kls[0]
            found.append(fit if better else identity(states.shape[-1], device))
            before.append(kls[0])
            after.append(kls[1] if better else kls[0])
            if progress:
                progress(i + 1, len(layers) - 1)
        found.append(identity(states.shape[-1], device))
        return cls(
            tuple(layers),
            torch.stack([fit.matrix for fit in found]).cpu(),
            torch.stack([fit.bias for fit in found]).cpu(),
            tuple(fit.stage for fit in found),
            (*before, 0.0),
            (*after, 0.0),
            (len(parts[0]), len(parts[1]), len(parts[2])),
            dict(model),
        )

    def translate(
        self, states: Float[Tensor, "*n layer d_model"], layers: Sequence[int] | None = None
    ) -> Float[Tensor, "*n layer d_model"]:
        """States in the basis of the last layer, to be read as final ones.

        Args:
            states: residual states of any dtype, on any device.
            layers: which layers they are of, in this order; those of the lens if left out.

        Returns:
            float32, on the device of the states; those of the last layer as they were.

        Raises:
            UsageError: for a layer that the lens has no translator for, or states of another width.
        """
        layers = self.layers if layers is None else tuple(layers)
        missing = [layer for layer in layers if layer not in self.layers]
        if missing or states.shape[-2:] != (len(layers), self.biases.shape[1]):
            raise UsageError(
                f"states of shape {tuple(states.shape)} at layers {list(layers)}: this tuned lens translates "
                f"{self.biases.shape[1]} coordinates of layers {list(self.layers)}."
            )
        out = states.float()
        places = [self.layers.index(layer) for layer in layers]
        # One layer at a time: a translator per prompt would be of size prompts x d_model x d_model.
        moved = [
            s + s @ self.matrices[i].to(s.device) + self.biases[i].to(s.device)
            for i, s in zip(places, out.unbind(-2), strict=True)
        ]
        return torch.stack(moved, -2)

    def save(self, folder: Path | str) -> Path:
        """Writes the lens into a folder, which is made, as safetensors and JSON; an older lens is replaced.

        Returns:
            The folder.
        """
        record = {
            "layers": self.layers,
            "stages": self.stages,
            "kl_before": self.kl_before,
            "kl_after": self.kl_after,
            "rows": self.rows,
            "model": self.model,
        }
        return write_lens(Path(folder), record, {"matrices": self.matrices, "biases": self.biases})

    @classmethod
    def load(cls, folder: Path | str, *, model: Mapping[str, str]) -> "TunedLens":
        """Reads a lens and checks every byte of its tensors.

        Args:
            folder: where it was saved.
            model: what the model is that it is to read, as for `fit`.

        Raises:
            UsageError: when there is none, or it is damaged.
            ModelMismatch: for another model, naming the field that differs.
        """
        record, tensors = read_lens(Path(folder), model)
        return cls(
            tuple(record["layers"]),
            tensors["matrices"],
            tensors["biases"],
            tuple(record["stages"]),
            tuple(record["kl_before"]),
            tuple(record["kl_after"]),
            tuple(record["rows"]),
            dict(record["model"]),
        )


def split_groups(groups: Sequence[str], *, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Rows to fit, to choose and to judge by; all rows of a group fall into the same part, and no part is empty.

    Args:
        groups: the group of every row, at least three different ones.
        seed: of the draw.
    """
    names = list(dict.fromkeys(groups))
    order: Int[Tensor, " group"] = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(HELD * len(names)))
    part = {names[i]: min(place // held, 2) for place, i in enumerate(order.tolist())}
    rows = [[row for row, group in enumerate(groups) if part[group] == k] for k in range(3)]
    return rows[2], rows[0][:: math.ceil(len(rows[0]) / CHOOSERS)], rows[1]


def _require(states: Tensor, layers: Sequence[int], groups: Sequence[str]) -> None:
    if states.shape[1] != len(layers) or list(layers) != sorted(set(layers)) or not layers:
        raise UsageError(f"layers {list(layers)}: give the {states.shape[1]} of the states, ascending.")
    if len(groups) != len(states):
        raise UsageError(f"{len(groups)} groups for {len(states)} rows of states; give one for each row.")
    if len(set(groups)) < 3:
        raise UsageError(
            f"{len(set(groups))} groups: a tuned lens needs at least three, to fit, to choose and to judge by."
        )
    if not states.isfinite().all():
        raise UsageError("the states hold NaN or infinity; harvest them in a wider dtype (--dtype fp32).")
