"""Where every harmful picture of a live model stands, with the thresholds that decide it taken from other data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from analyses.cross_modal.ladder import judged
from analyses.cross_modal.placement import Link, names, placed, retrieved
from analyses.cross_modal.questions import different
from analyses.cross_modal.session import Arrays, Session
from analyses.cross_modal.transfer import CAPTION, IMAGE, TEXT, Answers
from interp.cache.batches import make_batch
from interp.models.adapter import Adapter
from interp.models.encoding import Encoder
from interp.prompts.prompt import Prompt


def place_all(session: Session, answered: Answers) -> tuple[pd.DataFrame, dict[str, float]]:
    """Every harmful picture with its place, and what decided it.

    Returns:
        One row per harmful pair: id, scene, concept, answer, refused, named, retrieved, drift, place. And the
        thresholds: first and last safety layer, the drift that counts, the layer of retrieval; beside them how often
        each sign fires where it should not: pictures of twins drifted, answers that name the caption of another
        picture, and chance of a retrieval.
    """
    kept = session.arrays("placement", lambda: _measured(session, answered))
    pairs, harmful = session.pairs, answered.harmful
    said = answered.said[IMAGE]
    named = np.array([names(answer, pair.caption) for answer, pair in zip(said, pairs, strict=True)])
    drifted = kept["drift"] > kept["threshold"][0]
    refused = judged(said)
    places = placed(refused[harmful], (named | kept["retrieved"])[harmful], drifted[harmful])
    own = [pair for pair, kind in zip(pairs, harmful, strict=True) if kind]
    table = pd.DataFrame(
        {
            "id": [pair.id for pair in own],
            "scene": [pair.scene for pair in own],
            "concept": [pair.unit for pair in own],
            "answer": [answer for answer, kind in zip(said, harmful, strict=True) if kind],
            "named": named[harmful],
            "retrieved": kept["retrieved"][harmful],
            "drift": kept["drift"][harmful],
            "place": places,
        }
    )
    units = [pair.unit for pair in pairs]
    thresholds = {
        "first layer": float(kept["layers"][0]),
        "last layer": float(kept["layers"][-1]),
        "drift that counts": float(kept["threshold"][0]),
        "layer of retrieval": float(kept["retrieval_layer"][0]),
        "twins drifted": float(drifted[~harmful].mean()),
        "named by chance": _named_by_chance(said, [pair.caption for pair in pairs], units, session.seed),
        "retrieved by chance": 1 / len(set(units)),
    }
    return table, thresholds


def _named_by_chance(said: Sequence[str], captions: Sequence[str], units: Sequence[str], seed: int) -> float:
    """How often an answer names the caption of a picture of another concept, drawn at random."""
    rng, named = np.random.default_rng(seed), []
    for answer, unit in zip(said, units, strict=True):
        others = [i for i, other in enumerate(units) if other != unit]
        named.append(bool(others) and names(answer, captions[int(rng.choice(others))]))
    return float(np.mean(named))


def _measured(session: Session, answered: Answers) -> Arrays:
    session.notify("Reading how far pictures drift, and whether they are perceived.")
    adapter, size = session.adapter, session.effort.batch_size
    layers = list(range(adapter.n_layers + 1))

    def states(arm: str, positions: Sequence[str]) -> Float[Tensor, "pair layer position d_model"]:
        return states_of(adapter, session.prompts(arm), positions, layers, batch_size=size)

    image = states(IMAGE, ["image_mean", "t_post"])
    link = Link.of_text(states(TEXT, ["t_post"])[:, :, 0], answered.harmful, answered.units)
    caption = states(CAPTION, ["caption_mean"])[:, :, 0]
    units = [pair.unit for pair in session.pairs]
    found = np.stack([retrieved(image[:, i, 0], caption[:, i], units) for i in range(len(layers))])
    best = best_layer(found, answered.harmful)
    return {
        "drift": link.drift(image[:, :, 1], ~answered.harmful),
        "threshold": np.array([link.threshold]),
        "layers": np.array(link.layers),
        "separation": link.separation,
        "retrieved": found[best],
        "retrieval_layer": np.array([best]),
    }


def best_layer(found: Bool[ndarray, "layer pair"], harmful: Bool[ndarray, " pair"]) -> int:
    """The layer at which most pictures of twins find their caption, the first of equals; harmful ones do not count."""
    return int(found[:, ~harmful].mean(1).argmax())


def states_of(
    adapter: Adapter, prompts: Sequence[Prompt], positions: Sequence[str], layers: Sequence[int], *, batch_size: int
) -> Float[Tensor, "prompt layer position d_model"]:
    """States of prompts at named positions, float32, read batch by batch of similar length."""
    chosen, back = different(prompts)
    encoded = Encoder(adapter.processor).encode(chosen, positions)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    parts = []
    for start in range(0, len(order), batch_size):
        batch = make_batch([encoded[i] for i in order[start : start + batch_size]], 0)
        parts.append(adapter.states(batch, layers).float())
    return torch.cat(parts)[torch.tensor(order).argsort()][torch.tensor(back)]
