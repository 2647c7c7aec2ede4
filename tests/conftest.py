import os

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest
from hypothesis import settings

from interp.models.hooks import HooksAdapter
from tests.tiny import make_tokenizer, save_tiny, tiny_llama

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("interp", deadline=None)
settings.load_profile("interp")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in Hugging Face format: a random Llama and its tokenizer; never change it."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_adapter() -> HooksAdapter:
    """A random Llama behind the default backend; new for every test, so it may be changed."""
    return HooksAdapter.of_module(tiny_llama(), make_tokenizer())
