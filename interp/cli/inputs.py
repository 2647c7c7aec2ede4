"""What commands make of their arguments: prompts, a model to load, a planned harvest, layers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.cache import Capture, Harvest
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet
    from interp.prompts.pairs import Pair


def prompts(where: str, label: str | None, text_column: str | None, system: str | None, offline: bool) -> "PromptSet":
    """The prompts that ``where`` names, each after the system message if there is one."""
    from interp.prompts.hub import load_prompts

    if label is not None:
        label = choice("--label", label, ("harmful", "harmless"))
    loaded = load_prompts(where, label=label, text_column=text_column, offline=offline)
    return loaded if system is None else loaded.with_system(system)


def pairs(where: str, offline: bool) -> tuple["Pair", ...]:
    """The pictures with captions that ``where`` names: a file, or ``scenes``, with splits behind a colon or all."""
    from interp.console import notify
    from interp.prompts.pairs import read_pairs
    from interp.scenes.pictures import SPLITS, bundled_pairs

    name, colon, named = where.partition(":")
    if name != "scenes":
        return read_pairs(where)
    splits = [choice("pairs scenes:", one, SPLITS) for one in named.split(",")] if colon else SPLITS
    bundled = bundled_pairs(offline=offline, notify=notify)
    return tuple(pair for pair in bundled if pair.split in splits)


def digest_of_pairs(pairs: tuple["Pair", ...]) -> str:
    """Of everything but the pictures, which their prompts have the digest of."""
    import hashlib
    from dataclasses import replace

    return hashlib.sha256(repr([replace(p, image="") for p in pairs]).encode()).hexdigest()


def answer(pairs: str) -> Callable[[str], str]:
    """How a caption of ``pairs`` is answered: bundled concepts as `demo:llava` names them, others as they are."""
    if pairs.partition(":")[0] != "scenes":
        return lambda caption: caption
    from interp.models.projector.recipe import answer

    return answer


def source(
    model: str,
    revision: str | None,
    adapter: Path | None,
    offline: bool,
    trust_remote_code: str | None,
    *runtime: str,
) -> tuple["ModelSource", "Runtime"]:
    """The model that ``model`` names, fetched but not loaded; ``runtime`` is backend, dtype, device, attention."""
    from interp.console import notify
    from interp.models.runtime import Runtime
    from interp.models.source import resolve

    found = resolve(
        model,
        revision=revision,
        adapter=adapter,
        offline=offline,
        trust_remote_code=trust_remote_code,
        notify=notify,
    )
    return found, Runtime(*runtime).resolve(found)


def planned(source: "ModelSource", runtime: "Runtime", prompts: "PromptSet", capture: "Capture") -> "Harvest":
    """Loads the model, plans the harvest, and says how large and how long it will be."""
    from interp.cache import expected_seconds, plan_harvest
    from interp.console import duration, notify
    from interp.models.load import load

    notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}, {runtime.backend}).")
    plan = plan_harvest(load(source, runtime), prompts, capture)
    notify(
        f"{len(prompts)} prompts x {len(plan.capture.layers)} layers x {len(plan.positions)} positions x "
        f"{plan.adapter.d_model} x {plan.capture.storage} = {plan.bytes / 2**20:.1f} MiB; "
        f"{plan.tokens:,} tokens, about {duration(expected_seconds(plan))}."
    )
    return plan


def run(planned: "Harvest", root: Path, *, into: Path | None = None, **options: Any) -> Path:
    """Harvests under ``root``, or on in the run folder ``into``, with a bar and a stop that loses nothing."""
    from interp.cache import harvest_into, run_harvest
    from interp.console import progress, stoppable

    with stoppable() as should_stop, progress("harvest", "tokens") as update:
        options |= {"progress": update, "should_stop": should_stop}
        return run_harvest(planned, root, **options) if into is None else harvest_into(into, planned, **options)


def layers(text: str) -> tuple[int, ...]:
    """0,4,8-12 as numbers; empty for all."""
    from interp.errors import UsageError

    found: set[int] = set()
    try:
        for piece in filter(None, text.split(",")):
            first, _, last = piece.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise UsageError(f"--layers {text!r}: write numbers and ranges, such as 0,4,8-12.") from error
    return tuple(sorted(found))


def part(text: str) -> tuple[int, int]:
    """Such as 0/4, the first of four, as numbers."""
    from interp.errors import UsageError

    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal()):
        raise UsageError(f"--part {text!r}: write i/n, such as 0/4 for the first of four.")
    return int(index), int(of)


def choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """The value of an option that must be one of a few words."""
    from interp.errors import UsageError

    if value not in allowed:
        raise UsageError(f"{option} {value!r}: choose one of {', '.join(allowed)}.")
    return value


def identity(source: "ModelSource", runtime: "Runtime") -> dict[str, str]:
    """What a model is and how it is run, as a report's stamp holds it."""
    from dataclasses import asdict

    return {k: str(v) for k, v in {**asdict(source.identify()), **asdict(runtime)}.items()}


def short_digest(stamp: dict[str, Any]) -> str:
    """Names a report's folder by what is compared, so that another code version replaces its report."""
    from interp.cache.identity import run_key

    return run_key({k: v for k, v in stamp.items() if k != "code"})
