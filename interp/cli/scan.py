"""`interp scan`: harvests what is missing, reads it through the lens, and reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from interp.cache import Capture, Harvest
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet


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
    """Where along the layers does the model turn to refusal? Writes a heatmap and a report."""
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
