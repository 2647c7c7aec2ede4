"""`interp tga train`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from interp.models.adapter import Adapter
    from interp.tga.preparation import Prepared
    from interp.tga.recipe import Recipe
    from interp.tga.trainer import Trained
    from interp.tga.variants import Variant

Model = Annotated[str, typer.Argument(help="LLaVA-class model: hub id, folder or demo name.")]
Pairs = Annotated[
    str, typer.Argument(help="File with the columns image,caption,scene,twin_of; or scenes for the bundled ones.")
]
Runs = Annotated[Path, typer.Option(help="Folder of the cached runs.")]
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
Asks = Annotated[
    str, typer.Option(help="What a text is retrieved by: caption, or the number of a layer for image states there.")
]
Steps = Annotated[int, typer.Option(min=0, help="Updates; 0 to count them from --epochs.")]
Epochs = Annotated[float, typer.Option(help="How often every picture is seen.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures per update.")]
Micro = Annotated[int, typer.Option(min=1, help="Pictures run together.")]
Rate = Annotated[float, typer.Option(help="The highest, before a cosine decay.")]
Patience = Annotated[int, typer.Option(min=0, help="Measurements without improvement before stopping.")]
Every = Annotated[int, typer.Option(min=0, help="Steps between measurements; 0 for start and end.")]
LoraRank = Annotated[int, typer.Option(min=0, help="Rank of LoRA on the language model; 0 for none.")]
Track = Annotated[str | None, typer.Option(help="Log to trackio or wandb, if installed; may use the network.")]
OrderSeed = Annotated[int, typer.Option(min=0, help="Seed of the order of the pictures and of LoRA.")]


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
    retrieve_by: Asks = "caption",
    question: options.Question = options.ASKED,
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
    from interp.tga.assembly import ARMS
    from interp.tga.recipe import Recipe

    inputs.choice("--arm", arm, ARMS)
    _layer(retrieve_by)
    chosen = _variant(variant, layers, force, weight=weight, retrieved_in_prompt=retrieved_in_prompt)
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
    found = (model, revision, None, offline, trust_remote_code, "hooks", dtype, device, attention)
    asked = {"pairs": pairs, "texts": texts, "encoder": encoder, "question": question, "arm": arm, "by": retrieve_by}
    named = inputs.short_digest({"model": model, "revision": revision, "dtype": dtype, **asked, **recipe.record()})
    folder = out or runs / f"tga-{variant}-{arm}-{seed}-{named[:8]}"
    _summarise(_train(found, asked, recipe, folder, runs, track), chosen)


def _variant(name: str, layers: str | None, force: bool, **given: Any) -> "Variant":
    """The variant with what was given put in the place of its own."""
    from interp.tga.layers import parse_layers
    from interp.tga.variants import variant

    changed = {field: value for field, value in given.items() if value is not None}
    if layers is not None:
        changed["layers"] = parse_layers(layers, force=force)
    return variant(name, **changed)


def _train(
    model: tuple[Any, ...], asked: dict[str, str], recipe: "Recipe", folder: Path, runs: Path, track: str | None
) -> "Trained":
    from interp.cache.publish import publishing
    from interp.console import notify, progress, stoppable
    from interp.models.load import load
    from interp.tga.processes import Processes
    from interp.tga.tracking import tracker
    from interp.tga.trainer import train as fit

    processes = Processes()
    with processes.one_first():
        source, runtime = inputs.source(*model)
    runtime = replace(runtime, device=processes.device or runtime.device)
    notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
    adapter = load(source, runtime)
    with processes.one_first():
        prepared = _prepare(adapter, asked, recipe, runs, offline=model[3])
    data, main = prepared.data, processes.rank == 0
    notify(
        f"Training {recipe.variant.name} on {len(data.train)} pictures ({data.arm}), "
        f"{recipe.total_steps(len(data.train))} steps."
    )
    log = tracker(track, "interp-tga", recipe.record()) if track and main else lambda _: None
    with stoppable() as should_stop, progress("training", "steps") as update:
        trained = fit(
            adapter.model,
            data,
            recipe,
            folder,
            name=source.name,
            processes=processes,
            progress=update,
            log=log,
            should_stop=should_stop,
        )
    if main:
        with publishing(folder / "retrieved.parquet") as path:
            prepared.retrieved.to_parquet(path, index=False)
    return trained


def _prepare(adapter: "Adapter", asked: dict[str, str], recipe: "Recipe", runs: Path, *, offline: bool) -> "Prepared":
    from interp.console import notify, progress
    from interp.models.text_encoder import load_text_encoder
    from interp.tga.preparation import more_texts, prepare

    pairs = inputs.pairs(asked["pairs"], offline)
    layer = _layer(asked["by"])
    reader = load_text_encoder(asked["encoder"], offline=offline, notify=notify) if layer is None else layer
    with progress("vision features", "pictures") as update:
        return prepare(
            adapter,
            pairs,
            runs,
            variant=recipe.variant,
            arm=asked["arm"],
            question=asked["question"],
            retrieve_by=reader,
            texts=more_texts(asked["texts"], [p.caption for p in pairs]),
            answer=inputs.answer(asked["pairs"]),
            notify=notify,
            progress=update,
        )


def _layer(retrieve_by: str) -> int | None:
    from interp.errors import UsageError
    from interp.tga.preparation import CAPTION

    if retrieve_by == CAPTION:
        return None
    if not retrieve_by.isdecimal():
        raise UsageError(f"--retrieve-by {retrieve_by!r}: give {CAPTION}, or the number of a layer.")
    return int(retrieve_by)


def _summarise(trained: "Trained", variant: "Variant") -> None:
    from interp.console import out as console

    steps = trained.steps_table
    said = steps["validation"].dropna()
    early = ", stopped early" if trained.stopped_early else ""
    kept = "" if trained.kept_step == trained.steps else f"; the projector of step {trained.kept_step} is kept"
    console.print(f"- {variant.name}: {trained.steps} steps{early}{kept}.")
    if len(said):
        last = said[steps["step"] == trained.kept_step].iloc[-1]
        console.print(f"- Cross-entropy of validation captions: {said.iloc[0]:.3f} -> {last:.3f} nats per token.")
    audited = steps.dropna(subset=["guide_share"]) if "guide_share" in steps else steps.iloc[:0]
    if variant.guides and len(audited):
        share, cosine = audited["guide_share"].mean(), audited["gradient_cosine"].mean()
        console.print(
            f"- Share of the guide in the gradient: {share:.1%}, its cosine with the language model's: {cosine:.2f} "
            f"({len(audited)} audits)."
        )
    layers = trained.layers_table
    for _, row in (
        layers[layers["step"] <= trained.kept_step]
        .groupby("step")[["image_caption", "retrieved_caption"]]
        .mean()
        .iterrows()
    ):
        console.print(
            f"- After {row.name} steps, mean over layers on validation pictures: cos(image, caption) "
            f"{row['image_caption']:.3f}, cos(retrieved, caption) {row['retrieved_caption']:.3f}."
        )
    console.print(f"\ntraining: {trained.folder}")
