"""A training step from cached text states against recomputing them: ``python benchmarks/tga.py [--help]``.

A LLaVA is put together of the demo language model and a random projector, with random vision features, as many image
tokens as `demo:llava` has and the retrieved text before the picture. Everyone makes the same step: forward and backward
of the language model with the guide of the paper on every layer. Ours reads the states of captions and retrieved texts
from a cache, and runs what all prompts begin with once. One peer computes those states in every step, all else
being ours; the other also runs every prompt whole, as the released code of the paper does. Losses and gradients are
compared first; where they disagree no figure is printed. Then all take turns.
"""

# ruff: noqa: E402 - the path is set right before the imports that need it

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

# This file has the name of a package of the product, and Python looks beside a script first.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from interp.cache import ActivationCache
from interp.models.encoding import Encoder
from interp.models.hooks import HooksAdapter
from interp.models.load import load
from interp.models.lora import frozen_but
from interp.models.projected import ProjectedModel, Rows
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.prompts.prompt import PromptSet, user_prompt
from interp.prompts.twins import bundled_twins
from interp.tga.guide import guide_loss, masked_mean
from interp.tga.harvest import harvest_texts, row_of_text, rows_by_id, text_prompts
from interp.tga.losses import losses_of
from interp.tga.samples import TEXTS, TOWER, Sample, TrainingSet
from interp.tga.variants import PAPER

QUESTION = "Describe this scene."
PATCHES, FEATURES = 36, 384
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """What everyone is given.

    Attributes:
        adapter: the demo language model.
        model: the LLaVA around it.
        data: pictures with cached text states.
        texts: caption and retrieved text of every picture.
        layers: guided.
    """

    adapter: HooksAdapter
    model: Any
    data: TrainingSet
    texts: Sequence[tuple[str, str]]
    layers: tuple[int, ...]


def prepared(pictures: int, words: int, dtype: str, folder: Path) -> Work:
    """A LLaVA of the demo model, and pictures whose captions and retrieved texts are pieces of the bundled prompts."""
    adapter = load(resolve("demo:base"), Runtime(dtype=dtype))
    language, text_config = adapter.model, adapter.model.config
    image = adapter.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tower = CLIPVisionConfig(
        hidden_size=FEATURES, num_hidden_layers=1, num_attention_heads=6, image_size=84, patch_size=14
    )
    config = LlavaConfig(vision_config=tower, text_config=text_config, image_token_id=image)
    model = LlavaForConditionalGeneration(config).to(language.dtype)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    pieces = pieces_of_prompts(2 * pictures, words)
    texts = list(zip(pieces[:pictures], pieces[pictures:], strict=True))
    states = harvest_texts(adapter, list(dict.fromkeys(pieces)), folder, question=QUESTION)
    prompts = PromptSet("pictures", tuple(user_prompt(f"p{i}", str(i)) for i in range(pictures)))
    features = ActivationCache.from_arrays({TOWER: torch.randn(pictures, PATCHES, FEATURES)}, prompts, folder, name="x")
    rows = rows_by_id(states)
    samples = tuple(
        sample(adapter, i, (caption, other), (row_of_text(rows, caption), row_of_text(rows, other)), image)
        for i, (caption, other) in enumerate(texts)
    )
    layers = PAPER.layers_of(adapter.n_layers)
    return Work(adapter, model, TrainingSet(samples, (), features, states), texts, layers)


def pieces_of_prompts(count: int, words: int) -> list[str]:
    """As many texts of so many words: each begins with another bundled prompt and goes on into those after it."""
    prompts = [p.text.split() for p in bundled_twins("train")]
    going_on = ([*chain(*islice(cycle(prompts), i, i + words))] for i in range(count))
    return [" ".join(text[:words]) for text in going_on]


def sample(adapter: HooksAdapter, i: int, texts: tuple[str, str], at: tuple[int, int], image: int) -> Sample:
    """A prompt in whose slot the image tokens stand, the retrieved text before them; ``at`` are the texts' states."""
    (e,) = Encoder(adapter.tokenizer).encode([user_prompt("x", QUESTION, caption="a")], ["caption_mean", "t_post"])
    (slot,) = e.of_class("caption")
    caption, before = (adapter.tokenizer(text)["input_ids"] for text in texts)
    place = slot + len(before)
    ids = (*e.ids[:slot], *before, *(image,) * PATCHES, *e.ids[slot + 1 :])
    answer = (*caption, adapter.tokenizer.eos_token_id)
    return Sample(f"p{i}", ids, tuple(range(place, place + PATCHES)), answer, i, *at)


def cached(work: Work, reads: ProjectedModel) -> Callable[[Sequence[Sample]], Tensor]:
    """Ours: text states from the cache."""

    def loss(samples: Sequence[Sample]) -> Tensor:
        found = losses_of(reads, work.data, samples, PAPER, work.layers)
        return found.language / found.tokens + found.guide / found.pictures

    return loss


def recomputing(work: Work, reads: ProjectedModel, *, shares: bool) -> Callable[[Sequence[Sample]], Tensor]:
    """The same step with a forward over captions and retrieved texts; with or without tokens shared by all prompts."""
    encoder = Encoder(work.adapter.tokenizer)

    def states(texts: Sequence[str]) -> Tensor:
        encoded = [encoder.encode(text_prompts([t], QUESTION), [TEXTS])[0] for t in texts]
        width = max(len(e.ids) for e in encoded)
        ids, mask, there = (torch.zeros(len(texts), width, dtype=torch.long) for _ in range(3))
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)], mask[row, : len(e.ids)] = torch.tensor(e.ids), 1
            there[row, list(e.means[TEXTS])] = 1
        none = torch.zeros_like(ids).bool()
        rows = Rows(ids, mask, none, torch.full_like(ids, -100), torch.empty(0, PATCHES, FEATURES), work.data.shared)
        with torch.no_grad():
            seen = reads.run(rows if shares else replace(rows, shared=0), work.layers)
        there = there[:, -next(iter(seen.states.values())).shape[1] :].bool()
        return torch.stack([masked_mean(seen.states[layer], there) for layer in work.layers], dim=1)

    def loss(samples: Sequence[Sample]) -> Tensor:
        rows = work.data.rows(samples)
        seen = reads.run(rows if shares else replace(rows, shared=0), work.layers)
        there = rows.image[:, -next(iter(seen.states.values())).shape[1] :]
        image = torch.stack([masked_mean(seen.states[layer], there) for layer in work.layers], dim=1)
        pairs = [work.texts[s.feature] for s in samples]
        caption, retrieved = states([c for c, _ in pairs]), states([r for _, r in pairs])
        return seen.losses.mean() + guide_loss(image, caption, retrieved, PAPER).loss

    return loss


def step(
    loss: Callable[[Sequence[Sample]], Tensor], samples: Sequence[Sample], parameters: list[Tensor]
) -> tuple[float, Tensor]:
    """Loss and gradient of one step."""
    for parameter in parameters:
        parameter.grad = None
    found = loss(samples)
    found.backward()
    return float(found.detach()), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times a training step with and without cached text states.")
    parser.add_argument("--batch", type=int, default=16, help="pictures per step")
    parser.add_argument("--steps", type=int, default=5, help="timed rounds")
    parser.add_argument("--words", type=int, default=4, help="of every caption and retrieved text")
    parser.add_argument("--dtype", default="fp32", help="of the language model")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        work = prepared(args.batch * (args.steps + 1), args.words, args.dtype, Path(folder))
        reads = ProjectedModel(work.model)
        parameters: list[Tensor] = list(reads.projector.parameters())
        frozen_but(work.model, list(reads.projector.parameters()))
        peers = {
            "interp, cached states": cached(work, reads),
            "states recomputed": recomputing(work, reads, shares=True),
            "states recomputed, whole prompts": recomputing(work, reads, shares=False),
        }
        batches = [work.data.train[i * args.batch : (i + 1) * args.batch] for i in range(args.steps + 1)]
        first = {name: step(loss, batches[0], parameters) for name, loss in peers.items()}
        value, gradient = first["interp, cached states"]
        for name, (other, its) in first.items():
            away = float((its - gradient).norm() / gradient.norm())
            print(f"{name:<34} loss {other:.5f}, gradient off by {away:.2%}")
            if away > TOLERANCE or abs(other - value) > TOLERANCE * abs(value):
                raise SystemExit("No figures: the steps are not the same.")
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for batch in batches[1:]:
            for name, loss in peers.items():
                started = time.perf_counter()
                step(loss, batch, parameters)
                seconds[name].append(time.perf_counter() - started)
    ours = seconds["interp, cached states"]
    shared = work.data.shared
    print(
        f"\n{args.batch} pictures of {PATCHES} tokens, texts of {args.words} words, {len(work.layers)} layers, "
        f"{args.dtype}, {shared} shared tokens"
    )
    for name, each in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(each, ours, strict=True))
        print(f"{name:<34}{statistics.median(each):>8.2f} s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
