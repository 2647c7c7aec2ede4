"""`interp tga`: trains projectors by text-guided alignment, and puts what they do side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from analyses.tga.runs import Run
    from interp.prompts.pairs import Pair
    from interp.tga.recipe import Recipe
    from interp.tga.trainer import Trained
    from interp.tga.variants import Variant

app = typer.Typer(no_args_is_help=True, help="Text-guided alignment of a projector: train it, and see what it does.")

Model = Annotated[str, typer.Argument(help="LLaVA-class model: hub id, folder or demo name.")]
Pairs = Annotated[
    str, typer.Argument(help="File with the columns image,caption,scene,twin_of; or scenes for the bundled ones.")
]
Question = Annotated[str, typer.Option(help="What is asked about every picture.")]
Runs = Annotated[Path, typer.Option(help="Folder of the cached runs.")]
ASKED = "Describe this scene."

Into = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of this training; named if left out.")]
Name = Annotated[str, typer.Option(help="paper, released, no-guide, retrieved-text-only or centred.")]
Layers = Annotated[
    str | None, typer.Option(help="Guided layers: all, 10-18, or claim:RUN of a scan; else those of the variant.")
]
Force = Annotated[bool, typer.Option("--force", help="Take layers of a claim that is not established.")]
Arm = Annotated[str, typer.Option(help="The scenes' harmful pictures: left-out, guide-only or captioned.")]
InPrompt = Annotated[
    bool | None,
    typer.Option("--retrieved-in-prompt/--no-retrieved-in-prompt", help="The retrieved text before the picture."),
]
Weight = Annotated[float | None, typer.Option(help="Factor on the guide loss; else that of the variant.")]
Texts = Annotated[
    str, typer.Option(help="Texts to retrieve beside the captions: scenes, a file with one a line, or empty.")
]
Reader = Annotated[str, typer.Option(help="Sentence encoder of retrieval: demo:minilm, hub id or folder.")]
Steps = Annotated[int, typer.Option(min=0, help="Updates; 0 to count them from --epochs.")]
Epochs = Annotated[float, typer.Option(help="How often every picture is seen.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures per update.")]
Micro = Annotated[int, typer.Option(min=1, help="Pictures run together.")]
Rate = Annotated[float, typer.Option(help="The highest, before a cosine decay.")]
Patience = Annotated[int, typer.Option(min=0, help="Measurements without improvement before stopping.")]
Every = Annotated[int, typer.Option(min=0, help="Steps between measurements; 0 for start and end.")]
LoraRank = Annotated[int, typer.Option(min=0, help="Rank of LoRA on the language model; 0 for none.")]
Track = Annotated[str | None, typer.Option(help="Log to trackio or wandb, if installed; may use the network.")]
OrderSeed = Annotated[int, typer.Option(help="Seed of the order of the pictures and of LoRA.")]


@app.command()
@reported
def train(
    model: Model = "demo:llava",
    pairs: Pairs = "scenes",
    out: Into = None,
    variant: Name = "paper",
    layers: Layers = None,
    force: Force = False,
    arm: Arm = "captioned",
    weight: Weight = None,
    retrieved_in_prompt: InPrompt = None,
    texts: Texts = "scenes",
    encoder: Reader = "demo:minilm",
    question: Question = ASKED,
    steps: Steps = 0,
    epochs: Epochs = 1.0,
    batch: Batch = 16,
    micro_batch: Micro = 16,
    learning_rate: Rate = 1e-3,
    patience: Patience = 0,
    evaluate_every: Every = 0,
    lora: LoraRank = 0,
    runs: Runs = Path("runs"),
    track: Track = None,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    seed: OrderSeed = 0,
) -> None:
    """Trains the projector; the same command goes on where it was stopped.

    Text states and vision features are harvested once and shared by all trainings of a model.
    """
    from interp.models.lora import Lora
    from interp.tga.layers import parse_layers
    from interp.tga.recipe import Recipe
    from interp.tga.variants import variant as variant_of

    guided = None if layers is None else parse_layers(layers, force=force)
    chosen = variant_of(variant, layers=guided, weight=weight, retrieved_in_prompt=retrieved_in_prompt)
    recipe = Recipe(
        variant=chosen,
        epochs=epochs,
        steps=steps,
        batch=batch,
        micro_batch=min(batch, micro_batch),
        learning_rate=learning_rate,
        seed=seed,
        evaluate_every=evaluate_every,
        patience=patience,
        lora=Lora(rank=lora, alpha=2 * lora) if lora else None,
    )
    folder = out or runs / f"tga-{variant}-{arm}-{seed}"
    found = (model, revision, None, offline, trust_remote_code, "hooks", dtype, device, attention)
    asked = {"pairs": pairs, "texts": texts, "encoder": encoder, "question": question, "arm": arm}
    trained = _train(found, asked, recipe, folder, runs, track)
    _summarise(trained, chosen)


@app.command("eval")
@reported
def evaluate(
    trainings: Annotated[list[Path], typer.Argument(help="Folders of finished trainings.")],
    model: Annotated[str, typer.Option(help="The model that was trained.")] = "demo:llava",
    pairs: Annotated[str, typer.Option(help="What they are measured on; see train. Nothing trained on.")] = (
        "scenes:validation,test"
    ),
    question: Question = ASKED,
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
    from analyses.tga.runs import BEFORE, Run, read_run
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
    identities = [inputs.identity(*source) for source in sources]
    # What was trained belongs to a report too: two trainings may end in the same projector under two names.
    models = [[run.group, run.seed, list(run.choices), one] for run, one in zip(runs, identities, strict=True)]
    how = {"question": question, "transplants": transplants, "seed": seed}
    stamp = {"models": models, "pairs": pairs, **how, "code": code_digest()}
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
    from analyses.cross_modal.arms import image_prompts
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
                answer=_answer(stamp["pairs"]),
                transplants=stamp["transplants"] and run.group not in {one.run.group for one in found},
                harvest=inputs.run,
                seed=stamp["seed"],
                notify=notify,
            )
        )
    about = {"prompts": image_prompts(pairs, stamp["question"]).digest, "code": stamp["code"], "seed": stamp["seed"]}
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


def _train(
    model: tuple[Any, ...], asked: dict[str, str], recipe: "Recipe", folder: Path, runs: Path, track: str | None
) -> "Trained":
    from interp.cache.publish import publishing
    from interp.console import notify, progress, stoppable
    from interp.models.load import load
    from interp.models.text_encoder import load_text_encoder
    from interp.tga.preparation import more_texts, prepare
    from interp.tga.tracking import tracker
    from interp.tga.trainer import train as fit

    offline = model[3]
    source, runtime = inputs.source(*model)
    pairs = inputs.pairs(asked["pairs"], offline)
    notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
    adapter = load(source, runtime)
    reader = load_text_encoder(asked["encoder"], offline=offline, notify=notify)
    with progress("vision features", "pictures") as update:
        prepared = prepare(
            adapter,
            pairs,
            runs,
            variant=recipe.variant,
            arm=asked["arm"],
            question=asked["question"],
            encoder=reader,
            texts=more_texts(asked["texts"], [p.caption for p in pairs]),
            answer=_answer(asked["pairs"]),
            notify=notify,
            progress=update,
        )
    data = prepared.data
    notify(
        f"Training {recipe.variant.name} on {len(data.train)} pictures ({data.arm}), "
        f"{recipe.total_steps(len(data.train))} steps."
    )
    log = tracker(track, "interp-tga", recipe.record()) if track else lambda _: None
    with stoppable() as should_stop, progress("training", "steps") as update:
        trained = fit(
            adapter.model, data, recipe, folder, name=source.name, progress=update, log=log, should_stop=should_stop
        )
    with publishing(folder / "retrieved.parquet") as path:
        prepared.retrieved.to_parquet(path, index=False)
    return trained


def _answer(pairs: str) -> Callable[[str], str]:
    """How a caption is answered: the bundled concepts as `demo:llava` learnt to name them, others as they are."""
    if pairs.partition(":")[0] != "scenes":
        return lambda caption: caption
    from interp.models.projector.recipe import answer

    return answer


def _summarise(trained: "Trained", variant: "Variant") -> None:
    from interp.console import out as console

    steps = trained.steps_table
    said = steps["validation"].dropna()
    early = ", stopped early" if trained.stopped_early else ""
    console.print(f"- {variant.name}: {trained.steps} steps{early}.")
    if len(said):
        console.print(
            f"- Cross-entropy of validation captions: {said.iloc[0]:.3f} -> {said.iloc[-1]:.3f} nats per token."
        )
    audited = steps.dropna(subset=["guide_share"]) if "guide_share" in steps else steps.iloc[:0]
    if len(audited):
        share, cosine = audited["guide_share"].mean(), audited["gradient_cosine"].mean()
        console.print(
            f"- Share of the guide in the gradient: {share:.1%}, its cosine with the language model's: {cosine:.2f} "
            f"({len(audited)} audits)."
        )
    for _, row in trained.layers_table.groupby("step")[["image_caption", "retrieved_caption"]].mean().iterrows():
        console.print(
            f"- After {row.name} steps, mean over layers on validation pictures: cos(image, caption) "
            f"{row['image_caption']:.3f}, cos(retrieved, caption) {row['retrieved_caption']:.3f}."
        )
    console.print(f"\nprojector: {trained.folder / 'projector'}")
