"""Training in several processes: each takes every n-th picture of a micro-batch, and sums are taken over all of them.

One process needs nothing. Several are started by ``accelerate launch`` or ``torchrun``, and meet through accelerate.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

LONGEST_WAIT = timedelta(days=1)
"""The others wait while one harvests, which takes longer than the minutes that are usual."""


class Processes:
    """The processes that train together.

    Attributes:
        count: how many there are.
        rank: the number of this one, from 0; number 0 writes files.
    """

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), 0
        self._state: Any = None
        if self.count > 1:
            from accelerate import PartialState

            # A process group of the user's own is taken as it is; the CPU one has to be asked for by name.
            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
            self.count, self.rank = self._state.num_processes, self._state.process_index

    @property
    def device(self) -> str | None:
        """Where this process should put its model; None where the user decides."""
        return None if self._state is None else str(self._state.device)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same in every one."""
        if self._state is None:
            return tensor
        from accelerate.utils import reduce

        summed: Tensor = reduce(tensor, "sum")
        return summed

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process; all of them are told the same."""
        return flag if self._state is None else bool(self.total(torch.tensor(float(flag), device=self.device)) > 0)

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Number 0 does what stands inside before the others do, who find what it has kept."""
        if self.rank:
            self.wait()
        try:
            yield
        finally:  # an error of number 0 is every process's own, and none waits for it
            if not self.rank:
                self.wait()

    def wait(self) -> None:
        """Until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()
