"""The two runs that a training reads: vision features of its pictures, and states of its texts in their place."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from interp.cache import ActivationCache, Capture, plan_harvest, run_harvest
from interp.cache.derived import keep_json, kept_json
from interp.cache.publish import make_folder
from interp.errors import CacheError
from interp.models.adapter import Adapter
from interp.models.encoding import Encoder
from interp.models.pictures import Picture
from interp.models.vision_features import require_same_reading, vision_features
from interp.prompts.pairs import Pair
from interp.prompts.prompt import PromptSet, user_prompt
from interp.tga.samples import TEXTS, TOWER

Progress = Callable[[int, int], None]


def picture_prompts(pairs: Sequence[Pair], question: str) -> PromptSet:
    """One question about every picture."""
    prompts = (user_prompt(p.id, question, label=p.label, category=p.scene, group=p.unit, image=p.image) for p in pairs)
    return PromptSet("pictures", tuple(prompts))


def text_prompts(texts: Sequence[str], question: str) -> PromptSet:
    """The same question with a text in the place of the picture; ids are made of the texts."""
    named = {hashlib.sha256(text.encode()).hexdigest()[:16]: text for text in texts}
    return PromptSet("texts", tuple(user_prompt(name, question, caption=text) for name, text in named.items()))


def harvest_features(
    adapter: Adapter,
    pairs: Sequence[Pair],
    root: Path,
    *,
    question: str,
    batch: int = 16,
    progress: Progress | None = None,
) -> ActivationCache:
    """Runs the vision tower over pictures once; a second call finds the run.

    Args:
        adapter: a LLaVA-class model.
        pairs: the pictures; all features are held in memory until they are written.
        root: the folder under which the run folder is made.
        question: any; one picture is read with it to check that features are read as pictures are.
        batch: pictures run together.
        progress: called with (pictures done, pictures in all).

    Returns:
        A run with one row per picture at the position `TOWER`; its layers are the numbers of the patches.

    Raises:
        ModelError: when the model is not of the LLaVA class.
        ImageError: for a picture that can not be read.
    """
    prompts = picture_prompts(pairs, question)
    model = {k: v for k, v in asdict(adapter.identity).items() if k != "name"}
    stamp = {"model": model, "dtype": adapter.runtime.dtype, "prompts": prompts.digest, "batch": batch}
    name = f"tower-{prompts.digest[:16]}"
    make_folder(root)
    key = kept_json(root, name, stamp)
    if key is not None and (root / key).is_dir():
        return ActivationCache.open(root / key)
    encoded = Encoder(adapter.processor).encode(prompts, ["image_mean", "t_post"])
    pictures: list[Picture] = [e.picture for e in encoded if e.picture is not None]
    parts = []
    for start in range(0, len(pictures), batch):
        parts.append(vision_features(adapter.model, pictures[start : start + batch]))
        if start == 0:
            require_same_reading(adapter, encoded[0], parts[0][:1])
        if progress:
            progress(min(start + batch, len(pictures)), len(pictures))
    cache = ActivationCache.from_arrays({TOWER: torch.cat(parts)}, prompts, root, name=adapter.identity.name)
    keep_json(root, name, stamp, cache.key)
    return cache


def harvest_texts(
    adapter: Adapter, texts: Sequence[str], root: Path, *, question: str, layers: tuple[int, ...] = (), **options: Any
) -> ActivationCache:
    """States of texts in the place of the picture, as any harvest: it resumes, and a second call finds the run.

    Args:
        adapter: the model.
        texts: captions and retrieved texts; each is run once.
        root: the folder under which the run folder is made.
        question: that of the training prompts.
        layers: which are stored; all when left out.
        options: of `run_harvest`, such as ``progress``.

    Returns:
        A run with one row per text at the position `TEXTS`.
    """
    harvest = plan_harvest(adapter, text_prompts(texts, question), Capture(positions=(TEXTS,), layers=layers))
    return ActivationCache.open(run_harvest(harvest, root, **options))


def rows_by_id(cache: ActivationCache) -> dict[str, int]:
    """The row of every prompt of a run, by its id."""
    return {str(name): row for row, name in enumerate(cache.prompts["id"])}


def row_of_text(rows: dict[str, int], text: str) -> int:
    """The row of a text in a run of `harvest_texts`.

    Raises:
        CacheError: when the run has no such text.
    """
    row = rows.get(hashlib.sha256(text.encode()).hexdigest()[:16])
    if row is None:
        raise CacheError(f"the run of texts holds no states of {text!r}; harvest it again with all texts.")
    return row
