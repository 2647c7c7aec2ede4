"""The bundled twin prompts: pairs of the same form, one harmful, one harmless.

Twelve policy categories of 40 pairs each, written for this project. Requests only. The two of a pair share their
group, so that no split or resample parts them.
"""

from dataclasses import replace
from importlib.resources import as_file, files

from interp.errors import UsageError
from interp.prompts.files import read_prompts
from interp.prompts.prompt import PromptSet

SPLITS = ("train", "validation", "test")


def bundled_twins(split: str | None = None) -> PromptSet:
    """The bundled twins, or one split of them; their harm is in plain words.

    Raises:
        UsageError: for a split that does not exist.
    """
    return _bundled("twins", split)


def subtle_twins(split: str | None = None) -> PromptSet:
    """The subtle twins, or one split of them: the harm is in the target or the purpose, not in a word.

    They are hard for small models and for bags of words alike.

    Raises:
        UsageError: for a split that does not exist.
    """
    return _bundled("subtle", split)


def held_out_twins() -> PromptSet:
    """The test splits of both sets, plain and subtle: what no organism was trained on."""
    return PromptSet("held-out", (*bundled_twins("test"), *subtle_twins("test")))


def _bundled(name: str, split: str | None) -> PromptSet:
    if split not in (None, *SPLITS):
        raise UsageError(f"the {name} prompts have no split {split!r}; choose one of {', '.join(SPLITS)}.")
    with as_file(files("interp.prompts") / "data" / f"{name}.csv") as path:
        prompts = read_prompts(path, name=name)
    return prompts if split is None else replace(prompts.where(split=split), name=f"{name}:{split}")
