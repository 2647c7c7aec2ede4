"""Trains a projector: first to sort pictures by concept, then to name them through the frozen language model."""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interp.models.load import load
from interp.models.projector.network import FrozenReader, Projector
from interp.models.projector.recipe import QUESTIONS, ProjectorRecipe, answer
from interp.models.projector.views import features, views_of
from interp.models.runtime import Runtime
from interp.models.source import resolve
from interp.prompts.pairs import Pair

EVERY = 50
"""Steps between checkpoints."""
Say = Callable[[str], None]


def train(
    recipe: ProjectorRecipe, pairs: Sequence[Pair], tower: Any, processor: Any, work: Path, say: Say
) -> Projector:
    """Trains a projector on the ``train`` pairs and returns it; what was done is in ``work``.

    A run that was stopped goes on from its last checkpoint, with the same batches.

    Args:
        recipe: how.
        pairs: pictures with their captions; those of other splits are only looked at.
        tower: the vision tower, in fp32.
        processor: the image processor of the finished model.
        work: gets the tower's features, checkpoints and a log; made when it is not there.
        say: told in a line how far it is.
    """
    work.mkdir(parents=True, exist_ok=True)
    seen = [p for p in pairs if p.split == "train"]
    looked_at = {s: [p for p in pairs if p.split == s] for s in ("validation", "test")}
    names = sorted({p.caption for p in seen})
    stored = _stored(work / "features.safetensors", recipe, seen, looked_at, tower, processor, say)
    torch.manual_seed(recipe.seed)
    base: Any = load(resolve(recipe.language, notify=say), Runtime(dtype="fp32"))
    projector = Projector(stored["view-0"].shape[-1], base.d_model)
    projector.standardise(stored["view-0"])
    reader = reader_of(base, names)
    sort(projector, recipe, stored, [names.index(p.caption) for p in seen], len(names), say)
    scale_to(projector, stored["view-0"][:64], base.model.get_input_embeddings().weight)
    _caption(projector, reader, recipe, stored, seen, names, looked_at, work, say)
    return projector


def reader_of(base: Any, names: Sequence[str]) -> FrozenReader:
    """The language model with the prompt cut where the picture stands, once per question, and the names to say."""
    tokenizer, mark = base.tokenizer, "\u27e6picture\u27e7"
    cuts = []
    for question in QUESTIONS:
        turn = [{"role": "user", "content": f"{mark}\n{question}"}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        cuts.append([tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(mark)])
    answers = [[*tokenizer(answer(n), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for n in names]
    return FrozenReader(base.model, cuts[0][0], [after for _, after in cuts], answers)


def sort(
    projector: Projector,
    recipe: ProjectorRecipe,
    stored: dict[str, Tensor],
    concept: list[int],
    count: int,
    say: Say,
) -> None:
    """The first phase: the first layer learns what tells concepts apart across drawing styles.

    A linear classifier on the mean hidden units is trained with it and then thrown away. It knows concepts by number.
    """
    head = nn.Linear(projector.linear_1.out_features, count)
    parameters = [*projector.linear_1.parameters(), *head.parameters()]
    optimizer, schedule = _optimizer(parameters, recipe, recipe.sorting_steps)
    rng, labels = random.Random(recipe.seed), torch.tensor(concept)  # noqa: S311 - shuffling, not cryptography
    for step in range(1, recipe.sorting_steps + 1):
        rows = torch.tensor(rng.sample(range(len(concept)), min(recipe.sorting_batch, len(concept))))
        examples = stored[f"view-{rng.randrange(recipe.views)}"][rows]
        scores = head(projector.hidden(examples, recipe.noise).mean(1))
        loss = nn.functional.cross_entropy(scores, labels[rows], label_smoothing=0.1)
        _step(loss, parameters, optimizer, schedule)
        if step % EVERY == 0:
            say(f"sorting {step}/{recipe.sorting_steps}  loss {loss.item():.3f}")


@torch.no_grad()
def scale_to(projector: Projector, examples: Float[Tensor, "picture token feature"], embedding: Tensor) -> None:
    """Gives image tokens the mean norm of the language model's token embeddings."""
    tokens = projector(examples)
    factor = embedding.float().norm(dim=-1).mean() / tokens.norm(dim=-1).mean()
    projector.linear_2.weight.mul_(factor)
    projector.linear_2.bias.mul_(factor)


def _caption(
    projector: Projector,
    reader: FrozenReader,
    recipe: ProjectorRecipe,
    stored: dict[str, Tensor],
    seen: Sequence[Pair],
    names: Sequence[str],
    looked_at: dict[str, list[Pair]],
    work: Path,
    say: Say,
) -> None:
    """The second phase: the cross-entropy of each picture's name."""
    parameters = list(projector.parameters())
    optimizer, schedule = _optimizer(parameters, recipe, recipe.steps)
    done = _resume(work, projector, optimizer, schedule)
    drawn = _batches(recipe, [names.index(p.caption) for p in seen])
    started = time.perf_counter()
    for step, (rows, views, question) in zip(range(1, recipe.steps + 1), drawn, strict=False):
        if step <= done:
            continue
        torch.manual_seed(recipe.seed * 100_003 + step)  # the noise of a step is the same after a stop
        examples = torch.stack([stored[f"view-{v}"][r] for r, v in zip(rows, views, strict=True)])
        right = [names.index(seen[r].caption) for r in rows]
        log_probs, targets, _ = reader.log_probs(projector(examples, recipe.noise), question, right)
        loss = nn.functional.nll_loss(log_probs, targets)
        _step(loss, parameters, optimizer, schedule)
        if step % 10 == 0 or step == recipe.steps:
            pace = (time.perf_counter() - started) / (step - done)
            say(f"captioning {step}/{recipe.steps}  loss {loss.item():.3f}  {pace:.2f} s a step")
        if step % EVERY == 0 or step == recipe.steps:
            _checkpoint(work, projector, optimizer, schedule, step)
        if step % (4 * EVERY) == 0 or step == recipe.steps:
            validation = looked_at["validation"]
            hits = names_exactly(projector, reader, stored["validation"], [names.index(p.caption) for p in validation])
            say(f"captioning {step}/{recipe.steps}  named in the validation style: {sum(hits)} of {len(hits)}")


@torch.no_grad()
def names_exactly(
    projector: Projector, reader: FrozenReader, examples: Float[Tensor, "picture token feature"], names: list[int]
) -> list[bool]:
    """Whether the greedy answer to each picture is its name: every token of the name, and its end, is the likeliest."""
    hits = []
    for start in range(0, len(names), 16):
        right = names[start : start + 16]
        log_probs, targets, row = reader.log_probs(projector(examples[start : start + 16]), 0, right)
        correct = log_probs.argmax(-1) == targets
        hits += [bool(correct[row == r].all()) for r in range(len(right))]
    return hits


def _batches(recipe: ProjectorRecipe, concept: list[int]) -> Any:
    """Endless batches of (rows, views, question); every concept weighs alike, whatever number of pictures it has."""
    rng = random.Random(recipe.seed + 1)  # noqa: S311 - shuffling, not cryptography
    rows_of: dict[int, list[int]] = {}
    for row, name in enumerate(concept):
        rows_of.setdefault(name, []).append(row)
    waiting: list[int] = []
    while True:
        while len(waiting) < recipe.batch:
            order = list(rows_of)
            rng.shuffle(order)
            waiting += order
        chosen, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
        rows = [rng.choice(rows_of[name]) for name in chosen]
        views = [rng.randrange(recipe.views) for _ in rows]
        yield rows, views, 0 if rng.random() < 0.5 else rng.randrange(1, len(QUESTIONS))


def _stored(
    path: Path,
    recipe: ProjectorRecipe,
    seen: Sequence[Pair],
    looked_at: dict[str, list[Pair]],
    tower: Any,
    processor: Any,
    say: Say,
) -> dict[str, Tensor]:
    """The tower's features of every view and of the pictures that are only looked at, read once."""
    if path.is_file():
        return load_file(path)
    nth = views_of(seen, recipe.views, recipe.seed, recipe.outlines)
    stored = {}
    for number in range(recipe.views):
        stored[f"view-{number}"] = features(tower, processor, nth(number), recipe.layers)
        say(f"view {number + 1}/{recipe.views} of {len(seen)} pictures read")
    for split, pairs in looked_at.items():
        stored[split] = features(tower, processor, views_of(pairs, 1, 0)(0), recipe.layers)
    save_file(stored, path)
    return stored


def _optimizer(parameters: Sequence[nn.Parameter], recipe: ProjectorRecipe, steps: int) -> tuple[Any, Any]:
    """AdamW with a short linear warm-up and cosine decay."""
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    warm = max(1, steps // 20)

    def factor(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1))))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _step(loss: Tensor, parameters: Sequence[nn.Parameter], optimizer: Any, schedule: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


def _checkpoint(work: Path, projector: Projector, optimizer: Any, schedule: Any, step: int) -> None:
    moments = {
        f"moment.{i}.{name}": value
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    weights = {f"projector.{n}": t for n, t in projector.state_dict().items()}
    partial = work / "checkpoint.partial"
    known = {"step": str(step), "rates": json.dumps(schedule.get_last_lr())}
    save_file({**weights, **moments}, partial, metadata=known)
    partial.replace(work / "checkpoint.safetensors")


def _resume(work: Path, projector: Projector, optimizer: Any, schedule: Any) -> int:
    """Takes up the last checkpoint; the number of steps that are done."""
    from safetensors import safe_open

    path = work / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    stored = load_file(path)
    with safe_open(path, "pt") as file:
        known = file.metadata()
    projector.load_state_dict({n[len("projector.") :]: t for n, t in stored.items() if n.startswith("projector.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in stored.items():
        if name.startswith("moment."):
            _, number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = value
    done, rates = int(known["step"]), json.loads(known["rates"])
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": done, "_last_lr": rates})
    return done
