from pathlib import Path

import pytest

from interp.cache import run_harvest
from tests.cache.samples import FakeAdapter, planned


@pytest.fixture
def fake() -> FakeAdapter:
    return FakeAdapter()


@pytest.fixture
def run(fake: FakeAdapter, tmp_path: Path) -> Path:
    """A finished run of three shards, made by the fake adapter."""
    return run_harvest(planned(fake), tmp_path / "runs")
