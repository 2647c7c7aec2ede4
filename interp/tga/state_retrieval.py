"""Retrieval by image states: texts whose states, in the place of the picture, point where the picture's states point.

Both are taken at one layer of the model as it is, and the mean of their own kind is taken off, since else what all
texts share against all pictures would decide.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.cache.identity import canonical_json
from interp.models.adapter import Adapter
from interp.prompts.pairs import Pair
from interp.tga.corpus import Corpus
from interp.tga.harvest import harvest_texts, picture_prompts, row_of_text, rows_by_id
from interp.tga.retrieval import TextIndex
from interp.tga.samples import TEXTS

PICTURES = "image_mean"
"""Position of the states that a picture asks with: the mean over its tokens."""


def index_of_states(
    adapter: Adapter, corpus: Corpus, root: Path, *, question: str, layer: int, **harvest: Any
) -> TextIndex:
    """An index of texts by their states in the place of the picture.

    Args:
        adapter: a LLaVA-class model.
        corpus: the texts.
        root: the folder of run folders.
        question: the instruction behind them.
        layer: of the states, 0 to the number of blocks.
        harvest: options of `run_harvest`.

    Raises:
        UsageError: for a layer that is not there, or texts whose states are all the same.
    """
    cache = harvest_texts(adapter, corpus.texts, root, question=question, layers=(layer,), **harvest)
    places = rows_by_id(cache)
    directions = _directions(cache, TEXTS)[[row_of_text(places, text) for text in corpus.texts]]
    return TextIndex.of_vectors(corpus, directions, space=space_of(adapter, question, layer))


def states_of_pictures(
    adapter: Adapter, pairs: Sequence[Pair], root: Path, *, question: str, layer: int, **harvest: Any
) -> Float[ndarray, "picture d_model"]:
    """What pictures ask an index of `index_of_states` with; arguments and errors are the same.

    Returns:
        Directions of length 1, float32, in the order of the pairs.
    """
    capture = Capture(positions=(PICTURES,), layers=(layer,))
    planned = plan_harvest(adapter, picture_prompts(pairs, question), capture)
    cache = ActivationCache.open(run_harvest(planned, root, **harvest))
    places = rows_by_id(cache)
    return _directions(cache, PICTURES)[[places[pair.id] for pair in pairs]]


def space_of(adapter: Adapter, question: str, layer: int) -> str:
    """Digest of what states at a layer depend on but the texts and pictures."""
    model = {k: v for k, v in asdict(adapter.identity).items() if k != "name"}
    parts = {"model": model, "dtype": adapter.runtime.dtype, "question": question, "layer": layer}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def _directions(cache: ActivationCache, position: str) -> Float[ndarray, "row d_model"]:
    states: Tensor = cache.residuals(position=position)[:, 0].double()
    directions = torch.nn.functional.normalize(states - states.mean(0), dim=-1)
    return np.ascontiguousarray(directions.float().numpy())
