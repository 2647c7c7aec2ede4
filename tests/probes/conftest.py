from pathlib import Path

import pytest

from interp.cache import ActivationCache
from probes.train import TrainedProbe, train_probe
from tests.probes.planted import noise_cache, planted_cache, planted_labels, planted_prompts


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ActivationCache:
    """States in which layer 3 says whether a prompt is refused; never change it."""
    return planted_cache(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> ActivationCache:
    """States of the same shape that say nothing."""
    return noise_cache(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def trained(planted: ActivationCache, twin: ActivationCache) -> TrainedProbe:
    """The probe of the planted states."""
    return train_probe(planted, planted_prompts(), planted_labels(), position="t_post", random_twin=twin)


@pytest.fixture
def folder(trained: TrainedProbe, tmp_path: Path) -> Path:
    """That probe on disk."""
    from probes.files import save_probe

    return save_probe(trained.probe, tmp_path / "probe")
