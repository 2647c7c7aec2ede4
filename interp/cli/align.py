"""`interp align`: do pictures reach the states of their captions, and the refusal that their captions meet."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from analyses.cross_modal.reference import Reference
    from interp.models.adapter import Adapter
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.models.text_encoder import TextEncoder
    from interp.prompts.pairs import Pair
    from interp.study import Study


@reported
def align(
    model: Annotated[str, typer.Argument(help="Vision-language model: hub id, folder or demo:llava.")] = "demo:llava",
    pairs: Annotated[
        str, typer.Argument(help="File with the columns image,caption,scene,twin_of; or scenes[:SPLIT,...].")
    ] = "scenes:test",
    out: options.Out = Path("runs"),
    question: options.Question = options.ASKED,
    encoder: Annotated[
        str, typer.Option(help="Sentence encoder of the reference line: demo:minilm, hub id or folder; CLIP works too.")
    ] = "demo:minilm",
    layers: Annotated[
        str, typer.Option(help="Safety layers: 10-18, claim:RUN, or auto for where text tells scenes apart.")
    ] = "auto",
    interventions: Annotated[
        bool, typer.Option("--interventions/--no-interventions", help="Ladder, transplants and transfer as well.")
    ] = True,
    revision: options.Revision = None,
    adapter: options.Lora = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    token_budget: options.Budget = 4096,
    seed: options.Seed = 0,
) -> None:
    """Does the safety of a language model hear the picture? Alignment with its floors, references and claims.

    The model's answers are kept in the run folders; they may be sensitive.
    """
    from analyses.cross_modal.arms import image_prompts
    from interp.console import notify
    from interp.provenance import code_digest
    from interp.report import finished_study

    chosen = inputs.pairs(pairs, offline)
    found = (model, revision, adapter, offline, trust_remote_code)
    source, runtime = inputs.source(*found, "hooks", dtype, device, attention)
    asked = {
        "pairs": pairs,
        "prompts": image_prompts(chosen, question).digest,
        "captions": inputs.digest_of_pairs(chosen),
    }
    how = {"encoder": encoder, "layers": layers, "interventions": interventions, "question": question}
    stamp = {"model": inputs.identity(source, runtime), **asked, **how, "seed": seed, "code": code_digest()}
    folder = out / f"align-{inputs.short_digest(stamp)}"
    if finished_study(folder, stamp):
        notify("Nothing has changed since this report was written; no model was loaded.")
    else:
        _study((source, runtime), chosen, out, folder, stamp, token_budget=token_budget, offline=offline)
    _summarise(folder)


def _study(
    model: tuple["ModelSource", "Runtime"],
    pairs: tuple["Pair", ...],
    root: Path,
    folder: Path,
    stamp: dict[str, Any],
    *,
    token_budget: int,
    offline: bool,
) -> None:
    from analyses.cross_modal import align as analysis
    from analyses.cross_modal.harvested import harvest_sides
    from interp.cache import Capture
    from interp.console import notify, progress
    from interp.models.text_encoder import load_text_encoder
    from interp.report import write_study

    layers, loaded = _layers(stamp["layers"]), _loader(*model)
    sides = harvest_sides(
        *model,
        pairs,
        root,
        loaded,
        question=stamp["question"],
        limits=Capture(token_budget=token_budget),
        run=inputs.run,
        notify=notify,
    )
    reader = load_text_encoder(stamp["encoder"], offline=offline, notify=notify)
    about = {"code": stamp["code"], "question": stamp["question"], "pairs": stamp["pairs"]}
    notify("Comparing the arms.")
    with progress("diagnostics", "steps") as update:
        study = analysis.run(
            sides,
            encoder=(reader.name, reader.encode),
            references=_seeing(reader, pairs, stamp["seed"]),
            safety_layers=layers,
            seed=stamp["seed"],
            progress=update,
            provenance=about,
        )
    if stamp["interventions"]:
        study = _with_interventions(study, pairs, folder, loaded, sides.image.key, stamp)
    folder.mkdir(parents=True, exist_ok=True)
    write_study(study, folder, stamp=stamp)


def _with_interventions(
    study: "Study",
    pairs: tuple["Pair", ...],
    folder: Path,
    loaded: Callable[[], "Adapter"],
    run: str,
    stamp: dict[str, Any],
) -> "Study":
    """The study with ladder, transplants and transfer after it, where there are scenes with twins."""
    from dataclasses import replace

    from analyses.cross_modal import causal_study
    from analyses.cross_modal.observation import observe
    from interp.console import notify, progress
    from interp.errors import UsageError

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with progress("interventions", "steps") as update:
            seen = observe(
                pairs,
                folder,
                run,
                loaded,
                question=stamp["question"],
                seed=stamp["seed"],
                notify=notify,
                progress=update,
            )
    except UsageError as error:
        return replace(study, headlines=(*study.headlines, f"No interventions: {error}"))
    about = {key: stamp[key] for key in ("code", "seed", "prompts")} | {"run": run, "model": stamp["model"]["name"]}
    causal = causal_study.run(
        seen, model=stamp["model"]["name"], pairs=stamp["pairs"], seed=stamp["seed"], provenance=about
    )
    return causal.after(study)


def _loader(source: "ModelSource", runtime: "Runtime") -> Callable[[], "Adapter"]:
    """Loads the model when it is first asked for, and then no more."""
    from functools import cache

    from interp.console import notify
    from interp.models.load import load

    @cache
    def loaded() -> "Adapter":
        notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
        return load(source, runtime)

    return loaded


def _seeing(reader: "TextEncoder", pairs: tuple["Pair", ...], seed: int) -> tuple["Reference", ...]:
    """The line of an encoder that sees pictures itself, such as CLIP."""
    from analyses.cross_modal.reference import vector_reference
    from interp.prompts.images import read_image

    if not reader.reads_images:
        return ()
    pictures = reader.encode_images([read_image(p.image) for p in pairs])
    captions = reader.encode([p.caption for p in pairs])
    concepts = tuple(p.unit for p in pairs)
    what = "picture against caption, by an encoder of both"
    return (vector_reference(f"{reader.name} on pictures", what, pictures, captions, concepts, seed=seed),)


def _layers(text: str) -> tuple[int, ...] | None:
    """The safety layers; None for where text tells scenes from harmless pairs."""
    from interp.errors import UsageError
    from interp.tga.layers import parse_layers

    if text == "auto":
        return None
    found = parse_layers(text)
    if found is None:
        raise UsageError(f"--layers {text}: name the layers, or auto.")
    return found


def _summarise(folder: Path) -> None:
    from interp.console import out as console
    from interp.console import visible
    from interp.report import read_headlines

    for line in read_headlines(folder):
        console.print(f"- {visible(line)}")
    console.print(f"\nreport:   {folder / 'report.html'}\nheatmaps: {folder / 'heatmap.html'}")
