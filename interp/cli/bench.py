"""`interp bench locators`: do the locators find a refusal that was planted at a known layer?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from interp.lens import TunedLens
    from interp.models.adapter import Adapter
    from interp.prompts import PromptSet

app = typer.Typer(no_args_is_help=True, help="What is known is planted, and the methods are held to it.")
FAMILIES = "apology,inability,policy,redirect,lecture"
"""Five, so that no family goes with one strength or kind of plant, which take turns by two and three."""


@app.callback()
def _group() -> None:
    """Keeps `locators` a command of its own while it is the only one."""


@app.command()
@reported
def locators(
    model: options.Model = "demo:base",
    prompts: options.Prompts = "twins:test",
    out: options.Out = Path("runs"),
    plants: Annotated[int, typer.Option(min=0, help="How many refusals to plant.")] = 40,
    nulls: Annotated[int, typer.Option(min=0, help="How many cases without one.")] = 40,
    twins: Annotated[int, typer.Option(min=10, help="Twins that carry the plants; others tune the lens.")] = 40,
    patched: Annotated[int, typer.Option(min=4, help="Twins that are patched in every case.")] = 8,
    families: Annotated[str, typer.Option(help="Refusal families whose words are planted, in turn.")] = FAMILIES,
    revision: options.Revision = None,
    adapter: options.Lora = None,
    backend: options.Backend = "hooks",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    label: options.Label = None,
    text_column: options.TextColumn = None,
    system: options.System = None,
    seed: options.Seed = 0,
) -> None:
    """Which locators find a planted refusal, and which cry where there is none?

    Needs a model that does not refuse the prompts, and twins of one harmful and one harmless prompt each. Every case is
    kept when it is done; the same command goes on after a stop.
    """
    from dataclasses import asdict

    from interp.cache.identity import run_key
    from interp.console import notify
    from interp.errors import UsageError
    from interp.prompts.families import load_family
    from interp.provenance import code_digest
    from interp.report import finished_study

    if not plants + nulls:
        raise UsageError("--plants 0 --nulls 0: there is nothing to find and nothing to leave alone.")
    asked = inputs.prompts(prompts, label, text_column, system, offline)
    words = {name: load_family(name) for name in filter(None, families.split(","))}
    if not words:
        raise UsageError(f"--families {families!r}: names no family, such as {FAMILIES}.")
    source, runtime = inputs.source(
        model, revision, adapter, offline, trust_remote_code, backend, dtype, device, attention
    )
    sizes = {"plants": plants, "nulls": nulls, "twins": twins, "patched": patched, "families": list(words)}
    identity = {k: str(v) for k, v in {**asdict(source.identify()), **asdict(runtime)}.items()}
    about = {"model": identity, "prompts": asked.digest, "seed": seed, **sizes}
    folder, stamp = out / f"bench-{run_key(about)}", {**about, "code": code_digest()}
    if finished_study(folder, stamp):
        notify("Nothing has changed since this report was written; no model was loaded.")
    else:
        from interp.models.load import load

        notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}, {runtime.backend}).")
        _bench(load(source, runtime), asked, words, sizes, folder, stamp)
    _summarise(folder)


def _bench(
    loaded: "Adapter",
    asked: "PromptSet",
    families: dict[str, Any],
    sizes: dict[str, Any],
    folder: Path,
    stamp: dict[str, Any],
) -> None:
    from analyses import bench_study
    from analyses.hearing import some_twins
    from analyses.locator_bench import DECIDED_BY, cases, run
    from analyses.panel import Vocabulary
    from analyses.planted import Bed
    from interp.console import notify, progress
    from interp.errors import UsageError
    from interp.provenance import code_digest
    from interp.report import write_study

    seed = stamp["seed"]
    chosen = some_twins(asked, sizes["twins"], seed=seed)
    if len(chosen) < 2 * sizes["patched"]:
        raise UsageError(
            f"{asked.name}: {len(chosen) // 2} twins of one harmful and one harmless prompt, but {sizes['patched']} "
            "are to be patched; give prompts in twins (a group of two), or a smaller --patched."
        )
    folder.mkdir(parents=True, exist_ok=True)
    vocabularies = {name: Vocabulary.of(loaded.tokenizer, family) for name, family in families.items()}
    lens = _lens(loaded, asked, chosen, seed)
    todo = cases(loaded.n_layers, tuple(families), plants=sizes["plants"], nulls=sizes["nulls"], seed=seed)
    notify(f"Reading {len(chosen) // 2} twins as they are.")
    bed = Bed.of(loaded, chosen)
    kept = {k: stamp[k] for k in ("model", "prompts", "seed", "twins")} | {"code": code_digest(*DECIDED_BY)}
    with progress("bench", "cases") as update:
        found = run(bed, todo, vocabularies, lens, patched=sizes["patched"], folder=folder, stamp=kept, progress=update)
    study = bench_study.study(
        found,
        model=loaded.identity.name,
        prompts=f"{len(chosen) // 2} twins of {asked.name}",
        top_layer=loaded.n_layers,
        about={**stamp["model"], **{k: v for k, v in stamp.items() if k != "model"}},
    )
    write_study(study, folder, stamp=stamp)


def _lens(loaded: "Adapter", asked: "PromptSet", bed: "PromptSet", seed: int) -> "TunedLens | None":
    """A tuned lens fitted on the prompts that carry no plant; None where they are too few."""
    from analyses.second_readout import FEWEST_GROUPS, fit_on
    from interp.console import notify, progress

    used = {p.unit for p in bed}
    others = tuple(p for p in asked if p.unit not in used)
    if len({p.unit for p in others}) < FEWEST_GROUPS:
        notify("No tuned lens: too few prompts are left that carry no plant.")
        return None
    notify(f"Tuning a lens on {len(others)} other prompts.")
    with progress("tuned lens", "layers") as update:
        return fit_on(loaded, others, seed=seed, progress=update)


def _summarise(folder: Path) -> None:
    import pandas as pd

    from analyses.bench_study import summary
    from interp.console import out as console
    from interp.console import show, visible
    from interp.report import read_headlines

    show(summary(pd.read_parquet(folder / "tables" / "scores.parquet")))
    for line in read_headlines(folder):
        console.print(f"- {visible(line)}")
    console.print(f"\nreport:   {folder / 'report.html'}\nheatmaps: {folder / 'heatmap.html'}")
