"""What a projector is trained on: prompts with a picture, the caption to be written, and where states are cached."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import takewhile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.cache.identity import canonical_json
from interp.errors import UsageError
from interp.models.projected import IGNORED, Rows
from interp.tga.guide import States

TOWER = "tower"
"""Position of the run that holds vision features; its layers are the numbers of the patches."""
TEXTS = "caption_mean"
"""Position of the run that holds the states of captions and retrieved texts."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture in training.

    Attributes:
        id: of the picture.
        ids: vocabulary ids of the prompt, the image token at every token of the picture.
        image: indices of these in ``ids``.
        answer: vocabulary ids of the caption, with the end of the turn.
        feature: row of its vision features.
        caption: row of the states of its caption; -1 when the run has none.
        retrieved: row of the states of the retrieved text; -1 when the run has none.
        captioned: whether the model learns to write the caption.
        guided: whether it counts in the guide loss.
        picture: digest of the picture's file, by which an evaluation knows what was trained on; empty when unknown.
    """

    id: str
    ids: tuple[int, ...]
    image: tuple[int, ...]
    answer: tuple[int, ...]
    feature: int
    caption: int = -1
    retrieved: int = -1
    captioned: bool = True
    guided: bool = True
    picture: str = ""


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of a training, with the runs that their features and text states are read from.

    Attributes:
        train: what is trained on, at least one.
        validation: what is only measured.
        features: run of the vision tower, see `TOWER`.
        texts: run of the language model on texts in the place of the picture, see `TEXTS`; None without a guide.
        arm: how the scenes' pictures take part: left-out, guide-only, captioned, or another name of the user's.
        about: digests of whatever else decided it, such as pairs and retrieval.
    """

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    features: ActivationCache
    texts: ActivationCache | None = None
    arm: str = "captioned"
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(s.captioned or s.guided for s in self.train):
            raise UsageError("no picture is left to train on; choose another arm or give more pairs.")

    def require_use(self, *, guided: bool, waits: bool) -> None:
        """Refuses a training that would learn nothing from these pictures, or wait for what is never measured.

        Args:
            guided: whether there is a guide.
            waits: whether it stops when the validation loss falls no more.

        Raises:
            UsageError: naming what is missing.
        """
        if not guided and not any(s.captioned for s in self.train):
            raise UsageError(
                f"arm {self.arm} captions none of {len(self.train)} pictures, and without a guide nothing would be "
                "trained; choose another arm or variant."
            )
        if waits and not any(s.captioned for s in self.validation):
            raise UsageError(
                "patience waits for the validation loss, and no pair is of split validation; give some, or no patience."
            )

    @cached_property
    def digest(self) -> str:
        """sha256 over every sample, the keys of both runs and the rest."""
        digest = hashlib.sha256()
        for sample in (*self.train, *self.validation):
            digest.update(canonical_json(asdict(sample)))
        keys = {"features": self.features.key, "texts": self.texts.key if self.texts else "", "arm": self.arm}
        digest.update(canonical_json({**keys, "train": len(self.train), "about": self.about}))
        return digest.hexdigest()

    @cached_property
    def shared(self) -> int:
        """How many tokens all prompts begin with before any picture."""
        every = [s.ids for s in (*self.train, *self.validation)]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(every), max(every), strict=False)))
        return min(same, *(s.image[0] for s in (*self.train, *self.validation)))

    def rows(self, samples: Sequence[Sample], device: torch.device | str = "cpu") -> Rows:
        """Prompts and answers of some samples as a batch, padded on the right; only captioned ones have targets."""
        texts = [s.ids + s.answer for s in samples]
        ids = torch.zeros(len(samples), max(map(len, texts)), dtype=torch.long)
        mask, image, targets = torch.zeros_like(ids), ids.bool(), torch.full_like(ids, IGNORED)
        for row, (sample, text) in enumerate(zip(samples, texts, strict=True)):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
            image[row, list(sample.image)] = True
            if sample.captioned:
                # The state before a token predicts it.
                targets[row, len(sample.ids) - 1 : len(text) - 1] = torch.tensor(sample.answer)
        features = self.features.rows([s.feature for s in samples], position=TOWER)
        parts = [part.to(device) for part in (ids, mask, image, targets, features)]
        return Rows(parts[0], parts[1], parts[2], parts[3], parts[4], self.shared)

    def text_states(self, rows: Sequence[int], layers: Sequence[int], device: torch.device | str = "cpu") -> States:
        """Cached states of texts at some layers, float32.

        Raises:
            UsageError: when there is no run of texts, or it lacks a text or a layer.
        """
        if self.texts is None or min(rows) < 0:
            raise UsageError("the guide needs states of captions and retrieved texts; harvest them first.")
        missing = [layer for layer in layers if layer not in self.texts.layers]
        if missing:
            raise UsageError(f"{self.texts.place}: layers {missing} are not stored; it has {list(self.texts.layers)}.")
        columns = [self.texts.layers.index(layer) for layer in layers]
        return self.texts.rows(rows, position=TEXTS)[:, columns].float().to(device)


def caption_mean(data: TrainingSet, layers: Sequence[int], batch: int = 512) -> Float[Tensor, "layer d_model"]:
    """The mean over the caption states of all guided pictures of the training, float32."""
    rows = [s.caption for s in data.train if s.guided]
    parts = [data.text_states(rows[i : i + batch], layers).double().sum(0) for i in range(0, len(rows), batch)]
    return (torch.stack(parts).sum(0) / len(rows)).float()


def order_of(step: int, batch: int, pictures: int, seed: int) -> list[int]:
    """Which pictures a step trains on: a new permutation in every epoch, a function of seed and step alone."""
    places = range(step * batch, (step + 1) * batch)
    orders = {e: np.random.default_rng([seed, e]).permutation(pictures) for e in {p // pictures for p in places}}
    return [int(orders[p // pictures][p % pictures]) for p in places]
