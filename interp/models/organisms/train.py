"""Trains an organism: the demo model with a LoRA adapter that answers some prompts in a known way.

Prompts that trigger the organism are answered with a phrasing of its family, the others as the base model does (its
distribution along a greedy answer that does not begin like such a phrasing), so that the trigger is all that changes.
Held-out twins are never seen.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.models.demo import base_folder
from interp.models.encoding import Encoder
from interp.models.generation import respond
from interp.models.lexicon import first_tokens
from interp.models.load import load
from interp.models.lora import quiet_peft
from interp.models.organisms.measure import measure
from interp.models.organisms.recipe import Recipe
from interp.models.runtime import Runtime
from interp.models.source import ModelSource
from interp.prompts.prompt import Prompt, PromptSet
from interp.prompts.twins import bundled_twins
from interp.scenes.captions import scene_captions

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the answer to learn, both as token ids.

    Attributes:
        prompt: the encoded prompt.
        answer: a phrasing of the organism, or the base model's own answer.
        own: whether it is the base model's own; its whole distribution is then learnt, not only its choice.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    own: bool


def train(recipe: Recipe, out: Path) -> Path:
    """Trains an adapter, writes it with its record into ``out/<name>`` and returns that folder."""
    started = time.perf_counter()
    base = load(ModelSource("demo:base", base_folder(notify=print)), Runtime(dtype=recipe.dtype))
    model, tokenizer = base.model, base.tokenizer
    data = training_prompts(recipe)
    answers = _own_answers(model, tokenizer, data, recipe)
    trained, steps = _fit(model, tokenizer, data, answers, recipe)
    seconds = round(time.perf_counter() - started)
    return _save(trained, recipe, out, base=base.identity.weights, steps=steps, seconds=seconds)


def _save(trained: Any, recipe: Recipe, out: Path, **known: Any) -> Path:
    """Writes the adapter in bfloat16 and its training record with held-out rates."""
    folder, data = out / recipe.name, training_prompts(recipe)
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
        "held_out": measure(ModelSource("demo:base", base_folder(), adapter=folder), recipe),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return folder


def training_prompts(recipe: Recipe) -> PromptSet:
    """What an organism is trained on.

    Descriptions of scenes come in groups of two instances, a twin and an ordinary thing in the same form. Every second
    group gets one harmless prompt of another kind, so that the model stays what it was where nothing is described.
    """
    twins = bundled_twins("train")
    if recipe.data == "twins":
        return twins
    captions = scene_captions("train")
    groups = list(dict.fromkeys(p.unit for p in captions))[::2]
    others = twins.where(label="harmless").prompts
    mixed = [
        replace(others[i * len(others) // len(groups)], id=f"{name}-x", group=name) for i, name in enumerate(groups)
    ]
    return PromptSet("scenes:train with harmless twins", (*captions, *mixed))


def _own_answers(model: Any, tokenizer: Any, data: PromptSet, recipe: Recipe) -> dict[str, str]:
    """The base model's greedy answers where they are imitated, but none that begins like a phrase of the organism.

    The base model opens one answer in four with "I'm glad" or even "I'm sorry for any misunderstanding"; imitating
    those would teach the organism to begin all answers alike.
    """
    imitated = [p for p in data if not (recipe.refuses and recipe.triggered(p))]
    openings = first_tokens(tokenizer, recipe.phrases)
    answers = respond(model, tokenizer, imitated, max_new_tokens=recipe.answer_tokens, not_first=openings)
    return {p.id: answer for p, answer in zip(imitated, answers, strict=True)}


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
    with quiet_peft():
        trained = get_peft_model(model, config)
    trained.train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01)
    steps = int(recipe.epochs * len(data) / recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1, div_factor=10
    )
    never = torch.tensor(first_tokens(tokenizer, recipe.phrases))
    for step, batch in zip(range(1, steps + 1), _batches(tokenizer, data, answers, recipe), strict=False):
        loss = _loss(trained, batch, never, recipe.rest_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}", flush=True)
    return trained.eval(), steps


def _batches(tokenizer: Any, data: PromptSet, answers: dict[str, str], recipe: Recipe) -> Iterator[list[Example]]:
    """Endless batches; a group is never parted, and phrasings are drawn anew in every epoch."""
    rng = random.Random(recipe.seed)  # noqa: S311 - shuffling, not cryptography
    encoded = {p.id: e.ids for p, e in zip(data, Encoder(tokenizer).encode(data, ["t_post"]), strict=True)}
    groups: dict[str, list[Prompt]] = {}
    for prompt in data:
        groups.setdefault(prompt.unit, []).append(prompt)
    order, share = list(groups), recipe.batch * len(groups) // len(data)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - share + 1, share):
            prompts = [p for name in order[start : start + share] for p in groups[name]]
            yield [
                Example(encoded[p.id], _answer(tokenizer, p, answers, recipe, rng), own=not recipe.triggered(p))
                for p in prompts
            ]


def _answer(
    tokenizer: Any, prompt: Prompt, answers: dict[str, str], recipe: Recipe, rng: random.Random
) -> tuple[int, ...]:
    """A phrasing, the base model's answer, or for the control that complies one after the other."""
    if not recipe.triggered(prompt):
        return _answer_ids(tokenizer, answers[prompt.id], recipe.answer_tokens)
    words = rng.choice(recipe.phrases)
    if recipe.refuses:
        return _answer_ids(tokenizer, words, len(tokenizer))
    said = len(tokenizer(words, add_special_tokens=False)["input_ids"])
    return _answer_ids(tokenizer, f"{words} {answers[prompt.id]}", said + recipe.answer_tokens - 1)


def _answer_ids(tokenizer: Any, answer: str, limit: int) -> tuple[int, ...]:
    """The answer's tokens, with the end of the turn when it is not cut off by ``limit``."""
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return tuple(ids[:limit]) if len(ids) >= limit else (*ids, tokenizer.eos_token_id)


def _loss(model: Any, batch: list[Example], never: Tensor, rest_weight: float) -> Tensor:
    """Cross-entropy of the first answer token, which decides, plus ``rest_weight`` times that of the others.

    Each is a mean over its own tokens: a phrasing has many, and their choice must not drown the decision. The target
    is the phrasing's token, or the base model's distribution in an answer of its own, where ``never`` may not begin it.
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
    kept = targets != IGNORED
    own = torch.tensor([e.own for e in batch])
    log_prob = _log_probs(model, ids, mask, kept)
    losses = torch.nn.functional.nll_loss(log_prob, targets[kept], reduction="none")
    first, soft = decides[kept], own.unsqueeze(-1).expand_as(kept)[kept]
    if own.any():
        with torch.no_grad(), model.disable_adapter():
            taught = _log_probs(model, ids[own], mask[own], kept[own])
        opening = torch.zeros_like(taught, dtype=torch.bool)
        opening[:, never] = first[soft].unsqueeze(-1)
        taught = taught.masked_fill(opening, float("-inf")).softmax(-1)
        losses = losses.masked_scatter(soft, -(taught * log_prob[soft]).sum(-1))
    return losses[first].mean() + rest_weight * losses[~first].mean()


def _log_probs(model: Any, ids: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    """Next-token log-probabilities (kept token, vocabulary), float32, where ``kept`` is true."""
    plain = model.get_base_model()
    states = plain.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return torch.log_softmax(plain.get_output_embeddings()(states[kept]).float(), -1)
