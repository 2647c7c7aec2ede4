"""`interp tga`: trains projectors by text-guided alignment, and puts what they do side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from interp.tga.recipe import Recipe
    from interp.tga.trainer import Trained
    from interp.tga.variants import Variant

app = typer.Typer(no_args_is_help=True, help="Text-guided alignment of a projector: train it, and see what it does.")

Pairs = Annotated[
    str, typer.Argument(help="File with the columns image,caption,scene,twin_of; or scenes for the bundled ones.")
]
Question = Annotated[str, typer.Option(help="What is asked about every picture.")]
ASKED = "Describe this scene."


@app.command()
@reported
def train(
    model: Annotated[str, typer.Argument(help="LLaVA-class model: hub id, folder or demo name.")] = "demo:llava",
    pairs: Pairs = "scenes",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of this training; named if left out.")] = None,
    variant: Annotated[str, typer.Option(help="paper, released, no-guide, retrieved-text-only or centred.")] = "paper",
    layers: Annotated[
        str | None, typer.Option(help="Guided layers: all, 10-18, or claim:RUN of a scan; else those of the variant.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take layers of a claim that is not established.")] = False,
    arm: Annotated[
        str, typer.Option(help="The scenes' harmful pictures: left-out, guide-only or captioned.")
    ] = "captioned",
    weight: Annotated[float | None, typer.Option(help="Factor on the guide loss; else that of the variant.")] = None,
    texts: Annotated[
        str, typer.Option(help="Texts to retrieve beside the captions: scenes, a file with one a line, or empty.")
    ] = "scenes",
    encoder: Annotated[str, typer.Option(help="Sentence encoder of retrieval: demo:minilm, hub id or folder.")] = (
        "demo:minilm"
    ),
    question: Question = ASKED,
    steps: Annotated[int, typer.Option(min=0, help="Updates; 0 to count them from --epochs.")] = 0,
    epochs: Annotated[float, typer.Option(help="How often every picture is seen.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures per update.")] = 16,
    micro_batch: Annotated[int, typer.Option(min=1, help="Pictures run together.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="The highest, before a cosine decay.")] = 1e-3,
    patience: Annotated[int, typer.Option(min=0, help="Measurements without improvement before stopping.")] = 0,
    evaluate_every: Annotated[int, typer.Option(min=0, help="Steps between measurements; 0 for start and end.")] = 0,
    lora: Annotated[int, typer.Option(min=0, help="Rank of LoRA on the language model; 0 for none.")] = 0,
    runs: Annotated[Path, typer.Option(help="Folder of the cached runs.")] = Path("runs"),
    track: Annotated[str | None, typer.Option(help="Log to trackio or wandb, if installed; may use the network.")] = (
        None
    ),
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of the pictures and of LoRA.")] = 0,
) -> None:
    """Trains the projector; the same command goes on where it was stopped.

    Text states and vision features are harvested once and shared by all trainings of a model.
    """
    from interp.models.lora import Lora
    from interp.tga.layers import parse_layers
    from interp.tga.recipe import Recipe
    from interp.tga.variants import variant as variant_of

    guided = None if layers is None else parse_layers(layers, force=force)
    chosen = variant_of(variant, layers=guided, weight=weight)
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


def _train(
    model: tuple[Any, ...], asked: dict[str, str], recipe: "Recipe", folder: Path, runs: Path, track: str | None
) -> "Trained":
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
        return fit(
            adapter.model, data, recipe, folder, name=source.name, progress=update, log=log, should_stop=should_stop
        )


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
