"""`interp scan`: harvests what is missing, reads it through the lens, and reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from analyses.panel import Vocabulary
    from analyses.readings import Readings
    from interp.cache import ActivationCache, Capture, Harvest
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet
    from interp.study import Study


@reported
def scan(
    model: options.Model = "demo:apology",
    prompts: options.Prompts = "twins:test",
    out: options.Out = Path("runs"),
    family: Annotated[str, typer.Option(help="Refusal family whose words are looked for.")] = "apology",
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
    token_budget: options.Budget = 4096,
    keep_text: options.KeepText = False,
    seed: options.Seed = 0,
) -> None:
    """Which layers decide to refuse? Every locator, a causal check, heatmaps and a report.

    The model's answers are kept in the run folder; they may be sensitive.
    """
    from interp.cache import Capture

    chosen = inputs.prompts(prompts, label, text_column, system, offline)
    found = (model, revision, adapter, offline, trust_remote_code)
    source, runtime = inputs.source(*found, backend, dtype, device, attention)
    capture = Capture(positions=("t_inst", "all_post"), token_budget=token_budget)
    _scan(source, runtime, chosen, capture, out, family=family, seed=seed, keep_text=keep_text)


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
        planned = inputs.planned(source, runtime, prompts, capture)
        folder = inputs.run(planned, root, keep_text=keep_text)
        _study(planned, folder, known, stamp)
    _summarise(root / key)


def _study(planned: "Harvest", folder: Path, family: Any, stamp: dict[str, Any]) -> None:
    from analyses import scan as analysis
    from analyses.panel import Vocabulary
    from analyses.readings import kept_readings
    from interp.cache import ActivationCache
    from interp.console import duration, notify, progress
    from interp.report import write_study

    cache = ActivationCache.open(folder)
    readout = planned.adapter.readout()
    words = Vocabulary.of(planned.adapter.tokenizer, family)

    def expect(seconds: float) -> None:
        notify(f"Reading {len(cache.positions)} positions through the lens, about {duration(seconds)}.")

    with progress("lens", "positions") as update:
        read = kept_readings(cache, readout, words.lexicon, expect=expect, progress=update)
    study = analysis.run(
        cache,
        readout,
        words.lexicon,
        planned.prompts,
        read=read,
        position_tokens=planned.position_tokens,
        seed=stamp["seed"],
        provenance={"code": stamp["code"]},
    )
    if {p.label for p in planned.prompts} >= {"harmful", "harmless"}:
        study = study.after(_tribunal(planned, cache, words, read, stamp))
    write_study(study, folder, stamp=stamp)


def _tribunal(
    planned: "Harvest", cache: "ActivationCache", words: "Vocabulary", read: "Readings", stamp: dict[str, Any]
) -> "Study":
    """Every locator, patches and the trial of a direction; the model is asked and edited here."""
    from analyses import tribunal_study
    from analyses.hearing import hear
    from analyses.second_readout import kept_lens
    from interp.console import notify, progress
    from interp.judges import as_refused
    from probes.sweep import enough_of_both
    from probes.train import train_probe

    prompts, seed, readout = planned.prompts, stamp["seed"], planned.adapter.readout()
    with progress("tuned lens", "layers") as update:
        lens = kept_lens(cache, readout, [p.unit for p in prompts], seed=seed, progress=update)
    with progress("interventions", "steps") as update:
        hearing = hear(cache, prompts, planned.adapter, seed=seed, notify=notify, progress=update)
    notify("Probing, and asking every locator.")
    probe = None
    if enough_of_both(hearing.refused[hearing.counted]):
        probe = train_probe(cache, prompts, as_refused(hearing.behaviours), position="t_post", seed=seed)
    about = {"code": stamp["code"], "run": cache.key, "seed": seed, "prompts": prompts.digest}
    return tribunal_study.run(
        cache,
        readout,
        words,
        prompts,
        hearing,
        probe,
        lens=lens,
        read=read.lens,
        position_tokens=planned.position_tokens,
        seed=seed,
        provenance=about,
    )


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
