"""What the finished model names: by drawing style, beside chance and beside the wrong picture."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from interp.models.projector.recipe import named
from interp.prompts.pairs import Pair
from interp.scenes.captions import QUESTION
from interp.stats import wilson

LONGEST = 14


def measure(folder: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Shares of pictures named exactly, with Wilson intervals.

    Args:
        folder: of the finished model.
        pairs: all bundled pairs. Skin tones beside the first are left out: they are the same concept.

    Returns:
        ``named`` by style and split, and of the test split by what is in it; ``wrong_picture``: how often the answer to
        another concept's picture is this concept's name; ``answered``: the share of known names among the answers;
        ``chance``: what a random known name is right about; ``unknown``: the concepts that were held out. Each has
        value, lo, hi and n.
    """
    chosen = [p for p in pairs if p.image.endswith(f"/{p.caption.lower().replace(' ', '-')}.png")]
    known = sorted({p.caption for p in chosen if p.split == "train"})
    said = dict(zip([p.id for p in chosen], answers(folder, chosen), strict=True))
    hit = {p.id: named(said[p.id], p.caption) for p in chosen}
    test = [p for p in chosen if p.split == "test"]
    others = [*test[len(test) // 2 :], *test[: len(test) // 2]]
    kinds = {"harmful": [p for p in test if p.label == "harmful"]}
    kinds["twin"] = [p for p in test if p.twin_of is not None]
    kinds["ordinary"] = [p for p in test if p.scene is None]
    return {
        "named": {
            **{s: _share([hit[p.id] for p in chosen if p.split == s]) for s in ("train", "validation", "test")},
            **{f"test, {kind}": _share([hit[p.id] for p in among]) for kind, among in kinds.items()},
            **{
                f"style {s}": _share([hit[p.id] for p in chosen if p.style == s and p.split != "unknown"])
                for s in dict.fromkeys(p.style for p in chosen)
            },
        },
        "wrong_picture": _share([named(said[o.id], p.caption) for p, o in zip(test, others, strict=True)]),
        "answered": _share([any(named(said[p.id], name) for name in known) for p in test]),
        "unknown": _share([hit[p.id] for p in chosen if p.split == "unknown"]),
        "chance": {"value": round(1 / len(known), 4), "names": len(known)},
        "answers": {p.caption: said[p.id] for p in test},
    }


@torch.no_grad()
def answers(folder: Path, pairs: Sequence[Pair], *, batch: int = 16) -> list[str]:
    """The model's greedy answers to the question about each picture, through its own processor, in fp32.

    Args:
        folder: a `LlavaForConditionalGeneration` with its processor.
        pairs: the pictures.
        batch: how many at once.
    """
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    found: list[str] = []
    for start in range(0, len(pairs), batch):
        pictures = [Image.open(p.image).convert("RGB") for p in pairs[start : start + batch]]
        inputs = processor(images=pictures, text=[text] * len(pictures), return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        found += processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in found]


def _share(hits: Sequence[bool]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(wilson(sum(hits), len(hits))).items()}
