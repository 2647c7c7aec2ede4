"""The identity of a run: everything that decides the bits of its states, and the key made of it."""

import hashlib
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp.cache.plan import Capture
from interp.errors import ModelMismatch
from interp.models.identity import ModelIdentity
from interp.models.runtime import Runtime
from interp.prompts.prompt import PromptSet

FORMAT = 1
Identity = dict[str, Any]


def canonical_json(value: Any) -> bytes:
    """The one serialisation of a JSON value: sorted keys, UTF-8, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def make_identity(model: ModelIdentity, runtime: Runtime, prompts: PromptSet, capture: Capture) -> Identity:
    """Everything that decides the states of a run; ``runtime`` and ``capture`` must be resolved.

    Host, device number, worker count, wall time and patch versions are not part of it.
    """
    return {
        "format": FORMAT,
        **{f"model.{k}": v for k, v in asdict(model).items()},
        "runtime.backend": runtime.backend,
        "runtime.dtype": runtime.dtype,
        "runtime.device": runtime.device.partition(":")[0],
        "runtime.attention": runtime.attention,
        **{f"capture.{k}": list(v) if isinstance(v, tuple) else v for k, v in asdict(capture).items()},
        "capture.sites": ["resid_post"],
        "prompts": prompts.digest,
        "torch": _major_minor("torch"),
        "transformers": _major_minor("transformers"),
    }


def run_key(identity: Identity) -> str:
    """The first 16 hex digits of the sha256 of the identity's canonical JSON."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


def require_same(place: Path | str, expected: Identity, found: Identity) -> None:
    """Raises ModelMismatch naming the first field in which two identities differ.

    How the model is run comes first: another dtype changes digests and defaults too, and is what the user can change.
    """
    fields = sorted(expected.keys() | found.keys(), key=lambda f: (not f.startswith("runtime."), f))
    for field in fields:
        if expected.get(field) != found.get(field):
            raise ModelMismatch(place, field, expected.get(field), found.get(field))


def surroundings() -> dict[str, str]:
    """What is recorded in a run but not compared: machine, Python and full versions."""
    packages = ("torch", "transformers", "tokenizers", "safetensors", "interp")
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{p: version(p) for p in packages},
    }


def _major_minor(package: str) -> str:
    return ".".join(version(package).split(".")[:2])
