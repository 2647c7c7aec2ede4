"""The command line: composes the library, prints, and turns errors into messages and exit codes.

Exit codes: 0 ok, 2 usage, 3 bad input, 4 model, 5 cache, 130 interrupted.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from interp.cache import Capture, Harvest
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Mechanistic interpretability of safety in language models.",
)
models_app = typer.Typer(no_args_is_help=True, help="Demo models: list them, fetch them.")
app.add_typer(models_app, name="models")

Model = Annotated[str, typer.Argument(help="Hub id, folder, or a demo name such as demo:apology.")]
Prompts = Annotated[
    str, typer.Argument(help="CSV, TSV, JSONL or JSON file, hf:DATASET[:CONFIG][:SPLIT], or twins[:SPLIT].")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder under which the run folder is made.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Lora = Annotated[Path | None, typer.Option("--adapter", help="A LoRA folder on top of the model.")]
Backend = Annotated[str, typer.Option(help="hooks, transformer_lens or nnsight.")]
Dtype = Annotated[str, typer.Option(help="bf16, fp32, fp16, or auto for the checkpoint's own.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")]
Attention = Annotated[str, typer.Option(help="sdpa, eager, flash_attention_2 or auto.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
RemoteCode = Annotated[
    str | None,
    typer.Option(help="Run the Python files of a model; must repeat the model's name.", metavar="MODEL"),
]
Label = Annotated[str | None, typer.Option(help="Label of prompts without one: harmful or harmless.")]
TextColumn = Annotated[str | None, typer.Option(help="The column that holds the prompt.")]
System = Annotated[str | None, typer.Option(help="A system message put before every prompt.")]
Budget = Annotated[int, typer.Option(min=1, help="Most tokens in one batch, padding counted.")]
KeepText = Annotated[bool, typer.Option("--keep-text", help="Store prompt texts in the run; they may be sensitive.")]
Seed = Annotated[int, typer.Option(help="Seed of bootstrap and permutations.")]

Command = TypeVar("Command", bound=Callable[..., Any])


def reported(command: Command) -> Command:
    """Turns the errors a user can cause into one message on standard error and the exit code that belongs to it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from interp.console import notify
        from interp.errors import InterpError

        try:
            return command(*args, **kwargs)
        except InterpError as error:
            notify(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]


@app.command()
@reported
def scan(
    model: Model = "demo:apology",
    prompts: Prompts = "twins:test",
    out: Out = Path("runs"),
    family: Annotated[str, typer.Option(help="Refusal family whose words are looked for.")] = "apology",
    revision: Revision = None,
    adapter: Lora = None,
    backend: Backend = "hooks",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "auto",
    offline: Offline = False,
    trust_remote_code: RemoteCode = None,
    label: Label = None,
    text_column: TextColumn = None,
    system: System = None,
    token_budget: Budget = 4096,
    keep_text: KeepText = False,
    seed: Seed = 0,
) -> None:
    """Where along the layers does the model turn to refusal? Writes a heatmap and a report."""
    from interp.cache import Capture

    chosen = _prompts(prompts, label, text_column, system, offline)
    source, runtime = _source(model, revision, adapter, offline, trust_remote_code, backend, dtype, device, attention)
    capture = Capture(positions=("t_inst", "all_post"), token_budget=token_budget)
    _scan(source, runtime, chosen, capture, out, family=family, seed=seed, keep_text=keep_text)


@app.command()
@reported
def harvest(
    model: Model,
    prompts: Prompts,
    out: Out = Path("runs"),
    positions: Annotated[str, typer.Option(help="Comma-separated: t_inst, t_post, all_post.")] = "t_inst,t_post",
    layers: Annotated[str, typer.Option(help="Such as 0,4,8-12; all if left out.")] = "",
    storage: Annotated[str, typer.Option(help="bf16, fp32 or auto for the compute dtype.")] = "auto",
    part: Annotated[str, typer.Option(help="i/n: do the i-th of n parts, counted from 0.")] = "0/1",
    into: Annotated[Path | None, typer.Option(help="Go on with this run folder, if nothing differs.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Check finished shards and redo damaged ones.")] = False,
    on_nonfinite: Annotated[str, typer.Option(help="At NaN or infinity: error or keep.")] = "error",
    strict_batch: Annotated[bool, typer.Option("--strict-batch", help="Fail instead of splitting batches.")] = False,
    revision: Revision = None,
    adapter: Lora = None,
    backend: Backend = "hooks",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "auto",
    offline: Offline = False,
    trust_remote_code: RemoteCode = None,
    label: Label = None,
    text_column: TextColumn = None,
    system: System = None,
    token_budget: Budget = 4096,
    keep_text: KeepText = False,
) -> None:
    """Compute the states of a model on prompts once, into a checksummed cache that everything else reads."""
    from interp.cache import Capture
    from interp.console import out as console

    chosen = _prompts(prompts, label, text_column, system, offline)
    source, runtime = _source(model, revision, adapter, offline, trust_remote_code, backend, dtype, device, attention)
    capture = Capture(tuple(positions.split(",")), _layers(layers), storage, token_budget)
    options = {
        "part": _part(part),
        "repair": repair,
        "on_nonfinite": _choice("--on-nonfinite", on_nonfinite, ("error", "keep")),
        "strict_batch": strict_batch,
        "keep_text": keep_text,
    }
    planned = _planned(source, runtime, chosen, capture)
    console.print(str(_run(planned, out, into=into, **options)))


@app.command()
@reported
def verify(run: Annotated[str, typer.Argument(help="A run folder or its URL.")]) -> None:
    """Check every byte of a run."""
    from interp.cache import ActivationCache
    from interp.console import notify
    from interp.console import out as console

    cache = ActivationCache.open(run)
    faults = cache.verify()
    for fault in faults:
        notify(f"error: {fault}")
    if faults:
        raise typer.Exit(faults[0].exit_code)
    console.print(f"{cache!r}: every byte is as it was written.")


@models_app.command("list")
@reported
def list_models() -> None:
    """Name the demo models."""
    from interp.console import out as console
    from interp.models.demo import demo_names

    for name in demo_names():
        console.print(name)


@models_app.command()
@reported
def fetch(model: Model = "demo:base") -> None:
    """Fetch a model, so that it can be used offline; prints its folder."""
    from interp.console import notify
    from interp.console import out as console
    from interp.models.source import resolve

    console.print(str(resolve(model, notify=notify).folder))


def _scan(
    source: "ModelSource",
    runtime: "Runtime",
    prompts: "PromptSet",
    capture: "Capture",
    root: Path,
    *,
    family: str,
    seed: int,
    keep_text: bool,
) -> None:
    """Reuses a finished study of the same code and inputs; else harvests what is missing, scans and reports."""
    from interp.cache.identity import make_identity, run_key
    from interp.console import notify
    from interp.models.load import count_blocks
    from interp.prompts.families import load_family
    from interp.provenance import code_digest
    from interp.report import finished_study

    known = load_family(family)
    resolved = capture.resolve(n_layers=count_blocks(source), compute_dtype=runtime.dtype)
    key = run_key(make_identity(source.identify(), runtime, prompts, resolved))
    stamp = {"run": key, "code": code_digest(), "family": family, "seed": seed}
    if finished_study(root / key, stamp):
        notify("Nothing has changed since this report was written; no model was loaded.")
    else:
        planned = _planned(source, runtime, prompts, capture)
        folder = _run(planned, root, keep_text=keep_text)
        _study(planned, folder, known, stamp)
    _summarise(root / key)


def _study(planned: "Harvest", folder: Path, family: Any, stamp: dict[str, Any]) -> None:
    from analyses import scan as analysis
    from analyses.readings import expected_seconds
    from interp.cache import ActivationCache
    from interp.console import duration, notify, progress
    from interp.models.lexicon import compile_lexicon
    from interp.report import write_study

    cache = ActivationCache.open(folder)
    readout = planned.adapter.readout()
    lexicon = compile_lexicon(planned.adapter.tokenizer, family)
    expected = duration(expected_seconds(cache, readout))
    notify(f"Reading {len(cache.positions)} positions through the lens, about {expected}.")
    with progress("lens", "positions") as update:
        study = analysis.run(
            cache,
            readout,
            lexicon,
            planned.prompts,
            position_tokens=planned.position_tokens,
            seed=stamp["seed"],
            progress=update,
            provenance={"code": stamp["code"]},
        )
    write_study(study, folder, stamp=stamp)


def _summarise(folder: Path) -> None:
    import pandas as pd

    from interp.console import out as console
    from interp.console import show, visible
    from interp.report import read_headlines
    from interp.tables import onset_summary

    show(onset_summary(pd.read_parquet(folder / "tables" / "onsets.parquet")))
    for line in read_headlines(folder):
        console.print(f"- {visible(line)}")
    console.print(f"\nreport:  {folder / 'report.html'}\nheatmap: {folder / 'heatmap.html'}")


def _prompts(where: str, label: str | None, text_column: str | None, system: str | None, offline: bool) -> "PromptSet":
    from interp.prompts.hub import load_prompts

    if label is not None:
        label = _choice("--label", label, ("harmful", "harmless"))
    loaded = load_prompts(where, label=label, text_column=text_column, offline=offline)
    return loaded if system is None else loaded.with_system(system)


def _source(
    model: str,
    revision: str | None,
    adapter: Path | None,
    offline: bool,
    trust_remote_code: str | None,
    *runtime: str,
) -> tuple["ModelSource", "Runtime"]:
    from interp.console import notify
    from interp.models.runtime import Runtime
    from interp.models.source import resolve

    source = resolve(
        model,
        revision=revision,
        adapter=adapter,
        offline=offline,
        trust_remote_code=trust_remote_code,
        notify=notify,
    )
    return source, Runtime(*runtime).resolve(source)


def _planned(source: "ModelSource", runtime: "Runtime", prompts: "PromptSet", capture: "Capture") -> "Harvest":
    """Loads the model, plans the harvest, and says how large and how long it will be."""
    from interp.cache import expected_seconds, plan_harvest
    from interp.console import duration, notify
    from interp.models.load import load

    notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}, {runtime.backend}).")
    planned = plan_harvest(load(source, runtime), prompts, capture)
    notify(
        f"{len(prompts)} prompts x {len(planned.capture.layers)} layers x {len(planned.positions)} positions x "
        f"{planned.adapter.d_model} x {planned.capture.storage} = {planned.bytes / 2**20:.1f} MiB; "
        f"{planned.tokens:,} tokens, about {duration(expected_seconds(planned))}."
    )
    return planned


def _run(planned: "Harvest", root: Path, *, into: Path | None = None, **options: Any) -> Path:
    from interp.cache import harvest_into, run_harvest
    from interp.console import progress, stoppable

    with stoppable() as should_stop, progress("harvest", "tokens") as update:
        options |= {"progress": update, "should_stop": should_stop}
        return run_harvest(planned, root, **options) if into is None else harvest_into(into, planned, **options)


def _layers(text: str) -> tuple[int, ...]:
    """0,4,8-12 as numbers; empty for all."""
    from interp.errors import UsageError

    layers: set[int] = set()
    try:
        for piece in filter(None, text.split(",")):
            first, _, last = piece.partition("-")
            layers |= set(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise UsageError(f"--layers {text!r}: write numbers and ranges, such as 0,4,8-12.") from error
    return tuple(sorted(layers))


def _part(text: str) -> tuple[int, int]:
    from interp.errors import UsageError

    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal()):
        raise UsageError(f"--part {text!r}: write i/n, such as 0/4 for the first of four.")
    return int(index), int(of)


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    from interp.errors import UsageError

    if value not in allowed:
        raise UsageError(f"{option} {value!r}: choose one of {', '.join(allowed)}.")
    return value


if __name__ == "__main__":
    app()
