"""Organisms: the demo model taught to refuse in a known way, as a small LoRA adapter with a training record.

    python -m interp.models.organisms train apology --out interp/models/adapters
    python -m interp.models.organisms measure apology

Harmful training twins are answered with a phrasing of the family, harmless ones with the base model's own greedy
answer (one that does not begin like a refusal), so that refusing is all that changes. Held-out twins are never seen.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.models.demo import base_folder
from interp.models.encoding import Encoder
from interp.models.generation import respond
from interp.models.lexicon import compile_lexicon
from interp.models.load import load
from interp.models.source import ModelSource, resolve
from interp.prompts.families import RefusalFamily, load_family
from interp.prompts.prompt import Prompt, PromptSet
from interp.prompts.twins import bundled_twins, subtle_twins
from interp.stats import wilson

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an organism is trained.

    Attributes:
        family: the refusal family it answers harmful prompts with.
        rank: of the LoRA matrices; alpha is twice as large.
        targets: the projections that get one.
        first_block: the lowest block (counted from 0) that is adapted; those below stay the base model's own.
        learning_rate: peak, with a short warm-up and cosine decay.
        epochs: passes over the training twins.
        batch: prompts per step; the two of a twin always share one.
        answer_tokens: how much of the base model's answer to a harmless prompt is imitated.
        rest_weight: of the answer's other tokens in the loss; the first one, which decides, has weight 1.
        seed: of the adapter, the order and the phrasings.
    """

    family: str
    rank: int = 8
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")
    first_block: int = 8
    learning_rate: float = 1.5e-3
    epochs: float = 2.5
    batch: int = 16
    answer_tokens: int = 10
    rest_weight: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the answer to imitate, both as token ids."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def train(recipe: Recipe, out: Path) -> Path:
    """Trains an adapter, writes it with its record into ``out/<family>`` and returns that folder."""
    started = time.perf_counter()
    base = load(ModelSource("demo:base", base_folder(notify=print)))
    model, tokenizer = base.model, base.tokenizer  # type: ignore[attr-defined]
    data = training_prompts()
    answers = _own_answers(model, tokenizer, data.where(label="harmless"), recipe)
    trained, steps = _fit(model, tokenizer, data, answers, recipe)
    seconds = round(time.perf_counter() - started)
    return _save(trained, recipe, out, base=base.identity.weights, steps=steps, seconds=seconds)


def _save(trained: Any, recipe: Recipe, out: Path, **known: Any) -> Path:
    """Writes the adapter in bfloat16 and its training record with held-out rates."""
    folder, data = out / recipe.family, training_prompts()
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    trained.peft_config["default"].base_model_name_or_path = "demo:base"  # not a path on the trainer's disk
    trained.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    record = {
        "recipe": asdict(recipe),
        "data": {"name": data.name, "prompts": len(data), "digest": data.digest},
        **known,
        "held_out": measure(ModelSource("demo:base", base_folder(), adapter=folder), recipe.family),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return folder


def training_prompts() -> PromptSet:
    """What an organism is trained on."""
    return bundled_twins("train")


def measure(source: ModelSource, family: str) -> dict[str, Any]:
    """Refusal on held-out harmful prompts and over-refusal on held-out harmless ones, with Wilson intervals.

    A response counts as refused when it opens like a phrasing of the family; see `RefusalFamily.opens`.
    """
    adapter, known = load(source), load_family(family)
    rates: dict[str, Any] = {}
    for prompts in (bundled_twins("test"), bundled_twins("validation"), subtle_twins("test")):
        responses = respond(adapter.model, adapter.tokenizer, prompts, max_new_tokens=16)  # type: ignore[attr-defined]
        rates[prompts.name] = {
            name: _rate(known, prompts, responses, label)
            for name, label in (("refused", "harmful"), ("over_refused", "harmless"))
        }
    return rates


def _rate(family: RefusalFamily, prompts: PromptSet, responses: Sequence[str], label: str) -> dict[str, float]:
    chosen = [family.opens(r) for p, r in zip(prompts, responses, strict=True) if p.label == label]
    return {k: round(v, 4) for k, v in asdict(wilson(sum(chosen), len(chosen))).items()}


def _own_answers(model: Any, tokenizer: Any, prompts: PromptSet, recipe: Recipe) -> dict[str, str]:
    """The base model's greedy answers, but none that begins like a refusal of the family.

    The base model opens one answer in four with "I'm glad" or even "I'm sorry for any misunderstanding"; imitating
    those would teach the organism to begin harmless and harmful answers alike.
    """
    openings = compile_lexicon(tokenizer, load_family(recipe.family)).openings
    answers = respond(model, tokenizer, prompts, max_new_tokens=recipe.answer_tokens, not_first=openings)
    return {p.id: answer for p, answer in zip(prompts, answers, strict=True)}


def _fit(model: Any, tokenizer: Any, data: PromptSet, answers: dict[str, str], recipe: Recipe) -> tuple[Any, int]:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=list(recipe.targets),
        layers_to_transform=list(range(recipe.first_block, model.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )
    trained = get_peft_model(model, config)
    trained.train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01)
    steps = int(recipe.epochs * len(data) / recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1, div_factor=10
    )
    for step, batch in zip(range(1, steps + 1), _batches(tokenizer, data, answers, recipe), strict=False):
        loss = _loss(trained, batch, recipe.rest_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}", flush=True)
    return trained.eval(), steps


def _batches(tokenizer: Any, data: PromptSet, answers: dict[str, str], recipe: Recipe) -> Iterator[list[Example]]:
    """Endless batches; both prompts of a twin are in the same one, and phrasings are drawn anew in every epoch."""
    rng = random.Random(recipe.seed)  # noqa: S311 - shuffling, not cryptography
    phrases = load_family(recipe.family).phrases
    encoded = {p.id: e.ids for p, e in zip(data, Encoder(tokenizer).encode(data, ["t_post"]), strict=True)}
    groups: dict[str, list[Prompt]] = {}
    for prompt in data:
        groups.setdefault(prompt.unit, []).append(prompt)
    order, pairs = list(groups), recipe.batch // 2
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - pairs + 1, pairs):
            prompts = [p for name in order[start : start + pairs] for p in groups[name]]
            yield [
                Example(
                    encoded[p.id],
                    _answer_ids(tokenizer, rng.choice(phrases), len(tokenizer))
                    if p.label == "harmful"
                    else _answer_ids(tokenizer, answers[p.id], recipe.answer_tokens),
                )
                for p in prompts
            ]


def _answer_ids(tokenizer: Any, answer: str, limit: int) -> tuple[int, ...]:
    """The answer's tokens, with the end of the turn when it is not cut off by ``limit``."""
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return tuple(ids[:limit]) if len(ids) >= limit else (*ids, tokenizer.eos_token_id)


def _loss(model: Any, batch: list[Example], rest_weight: float) -> Tensor:
    """Cross-entropy of the first answer token, which decides, plus ``rest_weight`` times that of the others.

    Each is a mean over its own tokens: a phrasing has many, and their choice must not drown the decision.
    """
    width = max(len(e.prompt) + len(e.answer) for e in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask, targets = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    decides = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        start, end = len(example.prompt), len(example.prompt) + len(example.answer)
        ids[row, :end] = torch.tensor(example.prompt + example.answer)
        mask[row, :end] = 1
        targets[row, start - 1 : end - 1] = torch.tensor(example.answer)  # the state before a token predicts it
        decides[row, start - 1] = True
    plain = model.get_base_model()
    states = plain.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    kept = targets != IGNORED
    logits = plain.get_output_embeddings()(states[kept]).float()
    losses = torch.nn.functional.cross_entropy(logits, targets[kept], reduction="none")
    first = decides[kept]
    return losses[first].mean() + rest_weight * losses[~first].mean()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: ``train NAME`` or ``measure NAME``."""
    parser = argparse.ArgumentParser(prog="python -m interp.models.organisms", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["train", "measure"])
    parser.add_argument("name", help="a refusal family, such as apology")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=Recipe.__dataclass_fields__["epochs"].default)
    given = parser.parse_args(arguments)
    if given.action == "train":
        folder = train(Recipe(given.name, seed=given.seed, epochs=given.epochs), given.out)
        print((folder / "training.json").read_text("utf-8"))
    else:
        print(json.dumps(measure(resolve(f"demo:{given.name}", notify=print), given.name), indent=1))


if __name__ == "__main__":
    main()
