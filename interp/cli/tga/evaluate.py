"""`interp tga eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from analyses.tga.runs import Run
    from interp.prompts.pairs import Pair


@reported
def evaluate(
    trainings: Annotated[list[Path], typer.Argument(help="Folders of finished trainings.")],
    model: Annotated[str, typer.Option(help="The model that was trained.")] = "demo:llava",
    pairs: Annotated[str, typer.Option(help="A file as for train, or scenes:SPLIT,...; nothing trained on.")] = (
        "scenes:validation,test"
    ),
    question: options.Question = options.ASKED,
    transplants: Annotated[
        bool, typer.Option("--transplants", help="Transplant maps before and after, of one seed each; takes longest.")
    ] = False,
    out: options.Out = Path("runs"),
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    seed: options.Seed = 0,
) -> None:
    """One table with every training beside the model as it was: refusal, over-refusal, captions, alignment, claims.

    The model's answers are kept in the run folders; they may be sensitive.
    """
    from analyses.cross_modal.arms import image_prompts
    from analyses.tga.runs import BEFORE, Run, read_run, require_comparable, require_unseen
    from interp.console import notify
    from interp.errors import UsageError
    from interp.provenance import code_digest
    from interp.report import finished_study

    runs = [Run(None), *map(read_run, trainings)]
    loading = (offline, trust_remote_code, "hooks", dtype, device, attention)
    sources = [inputs.source(model, revision, run.folder, *loading) for run in runs]
    chosen = inputs.pairs(pairs, offline)
    if any(pair.split == "train" for pair in chosen):
        raise UsageError(f"--pairs {pairs}: some are of the split train, which was trained on; leave them out.")
    require_comparable(runs)
    require_unseen(runs, chosen)
    identities = [inputs.identity(*source) for source in sources]
    # What was trained belongs to a report too: two trainings may end in the same projector under two names.
    models = [[run.group, run.seed, dict(run.choices), one] for run, one in zip(runs, identities, strict=True)]
    seen = {
        "pairs": pairs,
        "prompts": image_prompts(chosen, question).digest,
        "captions": inputs.digest_of_pairs(chosen),
    }
    how = {"question": question, "transplants": transplants, "seed": seed}
    stamp = {"models": models, **seen, **how, "code": code_digest()}
    folder = out / f"tga-eval-{inputs.short_digest(stamp)}"
    if finished_study(folder, stamp):
        notify("Nothing has changed since this report was written; no model was loaded.")
    else:
        notify(f"Measuring {len(trainings)} trainings on {len(chosen)} pairs, beside the model {BEFORE}.")
        _evaluate(list(zip(runs, sources, strict=True)), chosen, out, folder, stamp)
    _summarise_study(folder)


def _evaluate(
    runs: list[tuple["Run", Any]], pairs: tuple["Pair", ...], root: Path, folder: Path, stamp: dict[str, Any]
) -> None:
    from analyses.tga.evaluation import Evaluated
    from analyses.tga.evaluation import evaluate as measure
    from analyses.tga.study import run as study_of
    from interp.console import notify
    from interp.report import write_study

    found: list[Evaluated] = []
    for run, (source, runtime) in runs:
        notify(f"{run.group}, seed {run.seed}" if run.folder else run.group)
        found.append(
            measure(
                run,
                source,
                runtime,
                pairs,
                root,
                question=stamp["question"],
                answer=inputs.answer(stamp["pairs"]),
                openings=found[0].openings if found else None,
                transplants=stamp["transplants"] and run.group not in {one.run.group for one in found},
                harvest=inputs.run,
                seed=stamp["seed"],
                notify=notify,
            )
        )
    about = {"prompts": stamp["prompts"], "code": stamp["code"], "seed": stamp["seed"]}
    study = study_of(found, model=runs[0][1][0].name, pairs=stamp["pairs"], seed=stamp["seed"], provenance=about)
    folder.mkdir(parents=True, exist_ok=True)
    write_study(study, folder, stamp=stamp)


def _summarise_study(folder: Path) -> None:
    from interp.console import out as console
    from interp.console import visible
    from interp.report import read_headlines

    for line in read_headlines(folder):
        console.print(f"- {visible(line)}")
    console.print(f"\nreport: {folder / 'report.html'}")
