"""`interp sensitivity`: which conclusions about refusal survive a change of wording."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet

Source = tuple["ModelSource", "Runtime"]


@reported
def sensitivity(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models of one base; the demo models of the twin prompts if left out.", show_default=False),
    ] = None,
    prompts: Annotated[str, typer.Option(help="What they are asked; see scan.")] = "twins:test",
    reader: Annotated[str, typer.Option(help="The model that reads responses for the judge.")] = "demo:base",
    out: options.Out = Path("runs"),
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
    """Which conclusions survive a change of wording? Every detector on models that refuse in different words.

    The models' answers are kept in their run folders; they may be sensitive.
    """
    from interp.console import notify
    from interp.errors import UsageError
    from interp.models.organisms.recipe import twin_organisms
    from interp.provenance import code_digest
    from interp.report import finished_study

    if models and len(models) < 2:
        raise UsageError("a sensitivity report compares models; give two or more, or none for the demo models.")
    asked = inputs.prompts(prompts, label, text_column, system, offline)
    runtime = ("hooks", dtype, device, attention)
    chosen = [inputs.source(m, None, None, offline, trust_remote_code, *runtime) for m in models or twin_organisms()]
    judge = inputs.source(reader, None, None, offline, trust_remote_code, *runtime)
    identities = [inputs.identity(*source) for source in (*chosen, judge)]
    stamp = {"models": identities, "prompts": asked.digest, "code": code_digest(), "seed": seed}
    folder = out / f"sensitivity-{inputs.short_digest(stamp)}"
    if finished_study(folder, stamp):
        notify("Nothing has changed since this report was written; no model was loaded.")
    else:
        _study(chosen, judge, asked, out, folder, stamp)
    _summarise(folder)


def _study(
    chosen: list[Source], judge: Source, asked: "PromptSet", root: Path, folder: Path, stamp: dict[str, Any]
) -> None:
    from analyses.response_judge import judge_responses
    from analyses.sensitivity import require_comparable, run
    from analyses.subjects import POSITIONS, measure, random_twin
    from interp.cache import Capture
    from interp.console import notify
    from interp.models.load import load
    from interp.report import write_study

    subjects = [measure(source, runtime, asked, root, notify=notify) for source, runtime in chosen]
    require_comparable(subjects)
    twin = random_twin(*chosen[0], asked, Capture(POSITIONS), root)
    notify(f"Judging the responses by the states of {judge[0].name}.")
    judged = judge_responses(subjects, *judge, root, lambda: load(*judge))
    study = run(
        subjects, judged, random_twin=twin, seed=stamp["seed"], notify=notify, provenance={"code": stamp["code"]}
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_study(study, folder, stamp=stamp)


def _summarise(folder: Path) -> None:
    import pandas as pd

    from analyses.sensitivity import summary
    from interp.console import out as console
    from interp.console import show, visible
    from interp.report import read_headlines

    answer, *rest = read_headlines(folder)
    console.print(visible(answer))
    show(summary(pd.read_parquet(folder / "tables" / "detectors.parquet")))
    for line in rest:
        console.print(f"- {visible(line)}")
    console.print(f"\nreport:   {folder / 'report.html'}\nheatmaps: {folder / 'heatmap.html'}")
