import json

import pytest
import torch

from interp.cache import ActivationCache, expected_seconds, run_harvest
from interp.cache.batches import batch_states
from interp.errors import ModelError
from tests.cache.samples import Altered, FakeAdapter, planned


def residuals(folder):
    cache = ActivationCache.open(folder)
    return {p: cache.residuals(position=p) for p in cache.positions}


class Narrow(FakeAdapter):
    """A device with room for k rows."""

    def __init__(self, k, error):
        super().__init__()
        self.k, self.error = k, error

    def states(self, batch, layers):
        if len(batch.ids) > self.k:
            self.calls.append(len(batch.ids))
            raise self.error
        return super().states(batch, layers)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    MemoryError(),
)


@pytest.mark.parametrize("k", range(1, 17))
def test_a_batch_that_does_not_fit_is_split_until_it_does(fake, tmp_path, k):
    whole = residuals(run_harvest(planned(fake, n=16, max_rows=16), tmp_path / "whole"))
    narrow = Narrow(k, OUT_OF_MEMORY[k % len(OUT_OF_MEMORY)])
    folder = run_harvest(planned(narrow, n=16, max_rows=16), tmp_path / "narrow")
    for position, states in residuals(folder).items():
        torch.testing.assert_close(states, whole[position], atol=1e-5, rtol=0)
    record = json.loads((folder / "shards/00000.json").read_text())
    assert record["micro_batch"] <= k < 2 * record["micro_batch"]
    assert sum(rows > k for rows in narrow.calls) <= 5  # log2(16) + 1


def test_the_real_allocator_is_understood():
    class Greedy(FakeAdapter):
        def states(self, batch, layers):
            if len(batch.ids) > 1:
                torch.empty(1 << 50)
            return super().states(batch, layers)

    states, rows = batch_states(Greedy(), planned(FakeAdapter()).batch(0), [0, 1])
    assert rows == 1
    assert len(states) == 4


def test_splitting_a_real_model_changes_nothing_beyond_rounding(tiny_adapter):
    harvest = planned(tiny_adapter, n=8, max_rows=8)
    layers = harvest.capture.layers

    def at_most_3(states, batch, _):
        if len(batch.ids) > 3:
            raise OUT_OF_MEMORY[0]
        return states

    whole, _ = batch_states(tiny_adapter, harvest.batch(0), layers)
    split, rows = batch_states(Altered(tiny_adapter, at_most_3), harvest.batch(0), layers)
    assert rows == 2
    torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-5)


def test_a_single_prompt_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="out of memory with 1 prompts"):
        run_harvest(planned(Narrow(0, OUT_OF_MEMORY[1])), tmp_path)


def test_a_strict_batch_is_not_split(tmp_path):
    with pytest.raises(ModelError, match="out of memory with 4 prompts"):
        run_harvest(planned(Narrow(3, OUT_OF_MEMORY[0])), tmp_path, strict_batch=True)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_harvest(planned(Narrow(3, RuntimeError("shape mismatch"))), tmp_path)


def test_the_time_is_estimated_with_the_rows_that_fit():
    assert 0 < expected_seconds(planned(Narrow(1, OUT_OF_MEMORY[0]))) < 60
