"""Prompts, adapters and child processes that the tests of the cache share."""

import hashlib
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.cache import Capture, Harvest, plan_harvest
from interp.models.adapter import Batch
from interp.models.anatomy import Site
from interp.models.identity import ModelIdentity
from interp.models.runtime import Runtime
from interp.prompts.prompt import PromptSet, user_prompt
from tests.tiny import make_tokenizer

WORDS = ("bread", "door", "letter", "noise of last night", "wizard", "漢字 and é", "lock", "the lazy dog", "box")


def some_prompts(n: int) -> PromptSet:
    """Prompts of different lengths, not sorted by length."""
    texts = [f"Explain {' '.join(WORDS[(i * 5 + k) % len(WORDS)] for k in range(1 + i * 7 % 6))}." for i in range(n)]
    labels = ("harmful", "harmless")
    return PromptSet("some", tuple(user_prompt(f"p{i}", t, label=labels[i % 2]) for i, t in enumerate(texts)))


class FakeAdapter:
    """A model without weights: a state is a sum over the tokens so far, exact in any batch."""

    n_layers, d_model = 3, 8
    model, shares = nn.Identity(), False

    def __init__(self) -> None:
        self.identity = ModelIdentity("fake", "", "w", "c", "t", "ct", "")
        self.runtime = Runtime("hooks", "fp32", "cpu", "eager")
        self.tokenizer = self.processor = make_tokenizer()
        self.sites: list[Site] = []
        self.calls: list[int] = []
        table = torch.arange(len(self.tokenizer) * self.d_model, dtype=torch.float32)
        self.table = (table * 0.37).sin().reshape(-1, self.d_model)

    def states(self, batch: Batch, layers: Sequence[int]) -> Tensor:
        self.calls.append(len(batch.ids))
        sums = (self.table[batch.ids] * batch.mask[..., None]).cumsum(1)
        at = sums[torch.arange(len(batch.ids))[:, None], batch.at]
        return torch.stack([at * (layer + 1) for layer in layers], dim=1)

    def readout(self) -> Any:
        raise NotImplementedError


class Altered:
    """An adapter whose states go through a function of (states, batch, layers)."""

    def __init__(self, adapter: Any, alter: Callable[[Tensor, Batch, Sequence[int]], Tensor]) -> None:
        self.adapter, self.alter = adapter, alter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)

    def states(self, batch: Batch, layers: Sequence[int]) -> Tensor:
        return self.alter(self.adapter.states(batch, layers), batch, layers)


def planned(adapter: Any, n: int = 12, **capture: Any) -> Harvest:
    """A harvest of a few small shards."""
    return plan_harvest(adapter, some_prompts(n), Capture(**{"max_rows": 4, **capture}))


def shard_digests(run: Path) -> dict[str, str]:
    """sha256 of the states of every shard."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.glob("shards/*.safetensors"))}


def names(run: Path) -> set[str]:
    """Every file of a run."""
    return {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}


def start_child(work: Callable[[], object]) -> int:
    """Forks a process that does the work: it ends with 0, with the exit code of its error, or with 70."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.alarm(60)
        torch.set_num_threads(1)  # the threads of the parent do not exist in a fork
        work()
        code = 0
    except BaseException as error:
        code = getattr(error, "exit_code", code)
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(pid: int) -> int:
    """How a child ended: its exit code, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(work: Callable[[], object]) -> int:
    """Forks, does the work there, waits, and says how it ended."""
    return end_of(start_child(work))
