"""A training between two steps: parameters, optimizer, what was measured, and how one step follows from another."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.cache.identity import canonical_json
from interp.errors import TrainingError
from interp.models.lora import add_lora, frozen_but, lora_parameters
from interp.models.projected import ProjectedModel
from interp.models.projector_file import owner_of
from interp.tga.audit import GradientAudit, gradients_of, require_honest
from interp.tga.centring import MOMENTUM, RunningMean
from interp.tga.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer
from interp.tga.losses import Centre, Losses, losses_of
from interp.tga.processes import Processes
from interp.tga.recipe import Recipe
from interp.tga.samples import Sample, TrainingSet, caption_mean, order_of
from interp.tga.validation import Validation, measure

CALIBRATION = round(1 / MOMENTUM)


class Training:
    """Everything that the next step depends on.

    Attributes:
        model: projector and language model.
        owner: what the projector belongs to.
        adapted: the model behind peft; None without LoRA.
        identity: everything that decides the training, by field.
        step: how many updates were made.
        total: how many there will be, unless it stops early.
        stopped: whether it did.
    """

    def __init__(self, model: Any, data: TrainingSet, recipe: Recipe, processes: Processes) -> None:
        self.data, self.recipe, self.processes = data, recipe, processes
        self.owner = owner_of(model)
        self.adapted = None if recipe.lora is None else add_lora(model, recipe.lora, seed=recipe.seed)
        self.model = ProjectedModel(model, frozen=recipe.lora is None)
        self.projector = dict(self.model.projector.named_parameters(prefix="projector"))
        self.trained = {**self.projector, **({} if self.adapted is None else lora_parameters(self.adapted))}
        frozen_but(model, list(self.trained.values()))
        self.layers = recipe.variant.layers_of(self.model.n_layers)
        data.require_use(guided=bool(self.layers), waits=bool(recipe.patience))
        self.total = recipe.total_steps(len(data.train))
        self.identity = self._identity()
        # One kernel for all parameters would be as exact; one at a time is the same on every device.
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=0.0, weight_decay=recipe.weight_decay, foreach=False
        )
        self.step, self.stopped = 0, False
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_loss, self.worse = 0, math.inf, 0
        self.running = RunningMean.empty(len(self.layers), self.model.d_model, self.model.device)
        self.text = torch.zeros_like(self.running.mean)
        if recipe.variant.centred:
            self.text = caption_mean(data, self.layers).to(self.model.device)
        self._steps: list[dict[str, float | int]] = []
        self._layers: list[dict[str, float | int]] = []

    @property
    def digest(self) -> str:
        """sha256 over the identity."""
        return hashlib.sha256(canonical_json(self.identity)).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.stopped or self.step >= self.total

    def begin(self) -> None:
        """What happens before the first step: image means are estimated, and the start is measured."""
        if self.recipe.variant.centred:
            for k in range(CALIBRATION):
                chosen, images = self._chosen(k), torch.zeros_like(self.running.mean)
                with torch.no_grad():
                    for mine in self._parts(chosen):
                        images += self._losses(mine).image_sum
                self._take_in(images, sum(s.guided for s in chosen))
        found = self._measure()
        self._layers += found.layers
        self._steps.append({"step": 0, "validation": found.loss})

    def advance(self) -> dict[str, float | int]:
        """Makes one update and returns what was measured on the way.

        Raises:
            TrainingError: when an audit finds another gradient than the variant says, or a loss or gradient is no
                number; before the update is made.
        """
        started = time.perf_counter()
        chosen = self._chosen(self.step)
        tokens = sum(len(s.answer) for s in chosen if s.captioned)
        pictures = sum(s.guided for s in chosen) if self.layers else 0
        sums = torch.zeros(4, device=self.model.device, dtype=torch.float64)
        images = torch.zeros_like(self.running.mean)
        audited = self._audit_is_due and pictures >= bool(self.layers)
        gradients = torch.zeros(2, sum(p.numel() for p in self.projector.values()) if audited else 0).to(sums)
        for mine in self._parts(chosen):
            found = self._losses(mine)
            language, guide = found.language / max(1, tokens), found.guide / max(1, pictures)
            if audited:
                gradients += gradients_of((guide, language), list(self.projector.values()))
            loss = language + guide
            if loss.requires_grad:
                loss.backward()
            sums += torch.stack([x.detach().double() for x in (language, guide, *_mean_cosines(found))])
            images += found.image_sum
        audit = self._audit(gradients) if audited else None
        rate = self._update()
        if self.recipe.variant.centred:
            self._take_in(images, pictures)
        self.step += 1
        return self._noted(self.processes.total(sums), pictures, rate, audit, started)

    @property
    def kept_step(self) -> int:
        """The step whose parameters are kept: the best measurement's with patience, else the last."""
        return self.best_step if self.best else self.step

    def take_best(self) -> None:
        """Puts back the parameters of the best measurement, where training was allowed to stop early."""
        with torch.no_grad():
            for name, tensor in self.best.items():
                self.trained[name].copy_(tensor)

    def release(self) -> None:
        """Gives the projector the dtype of the language model again, so that the model can be run on pictures."""
        self.optimizer.zero_grad()
        self.model.release()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers that `restore` needs beside the tables."""
        tensors = {f"parameter.{name}": p.detach() for name, p in self.trained.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= pack_optimizer(self.optimizer, list(self.trained))
        tensors |= {"running": self.running.mean, "random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        loss = None if math.isinf(self.best_loss) else self.best_loss
        best = {"best": loss, "best_step": self.best_step, "worse": self.worse}
        return tensors, {"batches": self.running.batches, "stopped": self.stopped, **best}

    def restore(self, kept: Checkpoint) -> None:
        """Goes back to a checkpoint, to the bit."""
        device, numbers = self.model.device, kept.numbers
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(kept.tensors[f"parameter.{name}"])
        unpack_optimizer(self.optimizer, list(self.trained), kept.tensors)
        self.best = {n.removeprefix("best."): t.to(device) for n, t in kept.tensors.items() if n.startswith("best.")}
        self.best_step = numbers["best_step"]
        self.best_loss = math.inf if numbers["best"] is None else numbers["best"]
        self.worse, self.stopped, self.step = numbers["worse"], numbers["stopped"], kept.step
        self.running = RunningMean(kept.tensors["running"].to(device), numbers["batches"])
        torch.set_rng_state(kept.tensors["random.cpu"])
        if "random.cuda" in kept.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(kept.tensors["random.cuda"])
        self._steps, self._layers = (_records(kept.tables[name]) for name in ("steps", "layers"))

    def tables(self) -> dict[str, pd.DataFrame]:
        """What was measured: ``steps`` by step, ``layers`` by step and layer."""
        columns = ["step", "layer", "image_caption", "retrieved_caption", "n"]
        return {"steps": pd.DataFrame(self._steps), "layers": pd.DataFrame(self._layers, columns=columns)}

    @property
    def _audit_is_due(self) -> bool:
        """Every so often, and until there was one: a first batch may hold no guided picture."""
        audited = any(not math.isnan(row.get("guide_norm", math.nan)) for row in self._steps)
        return self.step % self.recipe.audit_every == 0 or not audited

    def _identity(self) -> dict[str, Any]:
        start = hashlib.sha256()
        for name, parameter in sorted(self.projector.items()):
            start.update(f"{name}|{tuple(parameter.shape)}".encode())
            start.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        dtype = next(self.model.anatomy.decoder.parameters()).dtype
        return {
            **{f"model.{k}": v for k, v in self.owner.items()},
            "model.dtype": str(dtype).removeprefix("torch."),
            "start": start.hexdigest(),
            **{f"recipe.{k}": v for k, v in self.recipe.record().items()},
            "data.arm": self.data.arm,
            **{f"data.{k}": v for k, v in self.data.about.items()},
            "samples": self.data.digest,
            "processes": self.processes.count,
        }

    def _chosen(self, step: int) -> list[Sample]:
        rows = order_of(step, self.recipe.batch, len(self.data.train), self.recipe.seed)
        return [self.data.train[row] for row in rows]

    def _parts(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """What this process runs of every micro-batch; nothing where a short one leaves it none."""
        size = self.recipe.micro_batch
        for start in range(0, len(samples), size):
            mine = samples[start : start + size][self.processes.rank :: self.processes.count]
            if mine:
                yield mine

    def _losses(self, samples: Sequence[Sample]) -> Losses:
        variant = self.recipe.variant
        centre = Centre(self.running.mean, self.text) if variant.centred else None
        done = self.step / self.total
        return losses_of(self.model, self.data, samples, variant, self.layers, done=done, centre=centre)

    def _take_in(self, images: Float[Tensor, "layer d_model"], pictures: int) -> None:
        """A batch's sum of image states, of this process's part of it, goes into the running mean."""
        if pictures:
            self.running.update(self.processes.total(images) / pictures)

    def _audit(self, gradients: Float[Tensor, "loss parameter"]) -> GradientAudit:
        """The audit of a batch, of which this process has a part of both gradients."""
        audit = GradientAudit.of(*self.processes.total(gradients))
        require_honest(audit, self.recipe.variant)
        return audit

    def _update(self) -> float:
        """Adds up gradients over the processes, clips them and moves the parameters."""
        rate = self.recipe.rate(self.step, self.total)
        for parameter in self.trained.values():
            if self.processes.count > 1:
                parameter.grad = self.processes.total(
                    torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                )
        norm = float(nn.utils.clip_grad_norm_(list(self.trained.values()), self.recipe.clip))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the norm of the gradient is {norm}, and the update was not made; a lower "
                f"learning rate (it is {rate:.3g} here) or a wider dtype (fp32) usually helps."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return rate

    def _noted(
        self, sums: Tensor, pictures: int, rate: float, audit: GradientAudit | None, started: float
    ) -> dict[str, float | int]:
        language, guide, image_caption, retrieved_caption = sums.tolist()
        count = max(1, pictures)
        numbers: dict[str, float | int] = {
            "step": self.step,
            "language": language,
            "guide": guide,
            "image_caption": image_caption / count if pictures else math.nan,
            "retrieved_caption": retrieved_caption / count if pictures else math.nan,
            "rate": rate,
            "guide_norm": math.nan if audit is None else audit.guide_norm,
            "language_norm": math.nan if audit is None else audit.language_norm,
            "guide_share": math.nan if audit is None else audit.share,
            "gradient_cosine": math.nan if audit is None else audit.cosine,
            "validation": math.nan,
        }
        every = self.recipe.evaluate_every
        if self.finished or (every and self.step % every == 0):
            found = self._measure()
            self._layers += found.layers
            numbers["validation"] = found.loss
        numbers["seconds"] = time.perf_counter() - started
        self._steps.append(numbers)
        return numbers

    def _measure(self) -> Validation:
        """The validation pictures now; with patience, remembers the best and stops when it stays the best."""
        found = measure(self.model, self.data, self.step, self.recipe.micro_batch, self.processes)
        if self.recipe.patience and not math.isnan(found.loss):
            if found.loss < self.best_loss:
                self.best_step, self.best_loss, self.worse = self.step, found.loss, 0
                self.best = {name: p.detach().clone() for name, p in self.trained.items()}
            else:
                self.worse += 1
                self.stopped = self.worse >= self.recipe.patience
        return found


def _records(table: pd.DataFrame) -> list[dict[str, float | int]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _mean_cosines(found: Losses) -> tuple[Tensor, Tensor]:
    """Both cosines summed over the pictures and averaged over the layers; 0 without layers."""
    sums = found.image_caption, found.retrieved_caption
    one, other = (s.mean() if len(s) else s.new_zeros(()) for s in sums)
    return one, other
