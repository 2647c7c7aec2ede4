"""`interp probe`: train a probe of refusal, apply one to prompts or to an answer as it comes, show what one is."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    from analyses.subjects import Runner
    from interp.cache import ActivationCache, Capture, Harvest
    from interp.models.runtime import Runtime
    from interp.models.source import ModelSource
    from interp.prompts import PromptSet
    from probes.files import Probe

app = typer.Typer(no_args_is_help=True, help="Probes of refusal: train, apply, show.")

ProbeFolder = Annotated[Path, typer.Argument(help="The folder of a trained probe.")]
Runs = Annotated[Path, typer.Option(help="Folder under which the run folders of the caches are made.")]
AnswerTokens = Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")]


@app.command()
@reported
def train(
    model: options.Model,
    prompts: options.Prompts,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the probe.")] = Path("probe"),
    position: Annotated[str, typer.Option(help="t_inst, t_post, or post_0, post_1... between them.")] = "t_post",
    estimator: Annotated[str, typer.Option(help="logistic, mean_difference, discriminant or mlp.")] = "logistic",
    layer: Annotated[int | None, typer.Option(min=0, help="Chosen on validation if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a probe that is there.")] = False,
    runs: Runs = Path("runs"),
    answer_tokens: AnswerTokens = 32,
    revision: options.Revision = None,
    adapter: options.Lora = None,
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
    """Let the model answer, fit a probe of whether it refuses, and say what the probe is worth.

    The answers are kept in the run folder; they may be sensitive.
    """
    from analyses.subjects import random_twin
    from interp.cache import Capture
    from interp.console import notify
    from interp.models.load import count_blocks
    from probes.files import require_room, save_probe
    from probes.fitting import ESTIMATORS
    from probes.train import train_probe

    require_room(out, overwrite=overwrite)
    inputs.choice("--estimator", estimator, ESTIMATORS)
    chosen = _unanswered(inputs.prompts(prompts, label, text_column, system, offline))
    found = (model, revision, adapter, offline, trust_remote_code)
    source, runtime = inputs.source(*found, "hooks", dtype, device, attention)
    capture = _capture(position, token_budget=token_budget)
    if layer is not None:
        Capture(layers=(layer,)).resolve(n_layers=count_blocks(source), compute_dtype=runtime.dtype)
    run = partial(inputs.run, keep_text=keep_text)
    cache, refused, labelled = _observed(source, runtime, chosen, capture, position, runs, answer_tokens, run)
    notify("Harvesting its twin of random weights, as a baseline.")
    twin = random_twin(source, runtime, chosen, capture, runs, seed, run=run)
    notify("Fitting the probe and its controls.")
    how = partial(train_probe, position=position, estimator=estimator, layer=layer, seed=seed)
    trained = how(cache, chosen, refused, random_twin=twin, labelled=labelled)
    _report(trained.probe)
    notify(f"Wrote {save_probe(trained.probe, out, overwrite=overwrite)}.")


@app.command()
@reported
def apply(
    probe: ProbeFolder,
    model: options.Model,
    prompts: Annotated[str | None, typer.Argument(help="As for harvest; not needed with --stream TEXT.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a CSV file instead of a table.")] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="Score every token while the model answers: an instruction, or the id of one of PROMPTS."),
    ] = None,
    runs: Runs = Path("runs"),
    answer_tokens: AnswerTokens = 64,
    revision: options.Revision = None,
    adapter: options.Lora = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = "auto",
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
    text_column: options.TextColumn = None,
    system: options.System = None,
    token_budget: options.Budget = 4096,
) -> None:
    """Score prompts, or an answer token by token, with a probe of the very same model."""
    from interp.errors import UsageError
    from probes.files import load_probe

    loaded = load_probe(probe)
    if prompts is None and stream is None:
        raise UsageError("nothing to score: give PROMPTS, or --stream with an instruction.")
    chosen = None if prompts is None else inputs.prompts(prompts, None, text_column, system, offline)
    found = (model, revision, adapter, offline, trust_remote_code)
    source, runtime = inputs.source(*found, "hooks", dtype, device, attention)
    loaded.require(_identity(source, runtime), loaded.layer, loaded.position)
    if stream is not None:
        _stream(loaded, source, runtime, _one_prompt(stream, chosen, system), answer_tokens)
    elif chosen is not None:
        capture = _capture(loaded.position, layers=(loaded.layer,), token_budget=token_budget)
        _score(loaded, inputs.planned(source, runtime, chosen, capture), runs, out)


@app.command()
@reported
def show(probe: ProbeFolder) -> None:
    """Say what a probe is, how good, beside what, and what it can not tell."""
    from probes.files import load_probe

    _report(load_probe(probe))


def _report(probe: "Probe") -> None:
    from interp.console import out as console
    from interp.console import visible
    from probes.record import summary

    for line in summary(probe):
        console.print(visible(line))


def _capture(position: str, *, layers: tuple[int, ...] = (), token_budget: int) -> "Capture":
    """What to harvest for one position; the tokens between t_inst and t_post come together."""
    from interp.cache import Capture

    asked = "all_post" if position.startswith("post_") else position
    return Capture(positions=(asked,), layers=layers, token_budget=token_budget)


def _identity(source: "ModelSource", runtime: "Runtime") -> dict[str, Any]:
    from dataclasses import asdict

    return {**{f"model.{k}": v for k, v in asdict(source.identify()).items()}, "runtime.dtype": runtime.dtype}


def _observed(
    source: "ModelSource",
    runtime: "Runtime",
    prompts: "PromptSet",
    capture: "Capture",
    position: str,
    runs: Path,
    tokens: int,
    run: "Runner",
) -> tuple["ActivationCache", list[bool | None], str]:
    """The states of the model, what it did with every prompt, and how that was told; the model is let go then."""
    import numpy as np

    from analyses.answers import answers
    from analyses.subjects import harvested
    from interp.console import notify, progress, stoppable
    from interp.console import out as console
    from interp.judges import as_refused, behaviour, tally
    from interp.models.load import load
    from probes.sweep import require_both

    @cache
    def loaded() -> Any:
        notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
        return load(source, runtime)

    states = harvested(source, runtime, prompts, capture, runs, loaded, run)
    inputs.choice("--position", position, tuple(states.positions))
    with stoppable() as should_stop, progress("answers", "prompts") as update:
        said = answers(states, prompts, loaded, tokens=tokens, progress=update, should_stop=should_stop)
    found = [behaviour(answer) for answer in said]
    refused = as_refused(found)
    console.print(f"The model answered {len(found)} prompts: {tally(found)}.")
    require_both(np.array([one for one in refused if one is not None], dtype=bool))
    return states, refused, f"by how greedy answers of at most {tokens} tokens begin: {tally(found)}"


def _unanswered(prompts: "PromptSet") -> "PromptSet":
    """The prompts without responses that a file may hold: what counts is what the model answers itself."""
    from dataclasses import replace

    return replace(prompts, prompts=tuple(p.unanswered for p in prompts))


def _score(probe: "Probe", planned: "Harvest", runs: Path, out: Path | None) -> None:
    import pandas as pd
    import torch

    from interp.cache import ActivationCache
    from interp.console import notify, show

    cache = ActivationCache.open(inputs.run(planned, runs))
    probe.require(cache, probe.layer, probe.position)
    scores = probe.score(cache.residuals(position=probe.position, layer=probe.layer))
    known = {"id": [p.id for p in planned.prompts], "label": [p.label or "" for p in planned.prompts]}
    columns = {"score": scores, "probability": torch.sigmoid(scores), "fired": probe.fired(scores)}
    table = pd.DataFrame({**known, **{name: column.numpy() for name, column in columns.items()}})
    if out is None:
        show(
            table.assign(
                score=table["score"].map("{:+.2f}".format), probability=table["probability"].map("{:.3f}".format)
            )
        )
    else:
        table.to_csv(out, index=False, lineterminator="\n", encoding="utf-8")
        notify(f"Wrote {len(table)} scores to {out}.")


def _one_prompt(text: str, prompts: "PromptSet | None", system: str | None) -> Any:
    """The prompt of this id, or, where there are no prompts, the text itself as one."""
    from interp.errors import UsageError
    from interp.prompts import PromptSet, user_prompt

    if prompts is None:
        alone = PromptSet("stream", (user_prompt("stream", text),))
        return (alone if system is None else alone.with_system(system)).prompts[0]
    found = next((p for p in _unanswered(prompts) if p.id == text), None)
    if found is None:
        raise UsageError(f"{prompts.name}: has no prompt of id {text!r}; leave PROMPTS out to give an instruction.")
    return found


def _stream(probe: "Probe", source: "ModelSource", runtime: "Runtime", prompt: Any, tokens: int) -> None:
    import torch

    from interp.console import notify, visible
    from interp.console import out as console
    from interp.models.load import load
    from interp.models.streaming import stream

    notify(f"Loading {source.name} ({runtime.dtype} on {runtime.device}).")
    model: Any = load(source, runtime)
    line = {"t_post": 0, "response_first": 1}.get(probe.position)
    where = "no line here" if line is None else ("the first line", "the second line")[line]
    notify(
        f"Score, probability and token, each at the state that chose the token. The probe was trained at "
        f"{probe.position}, which is {where}; elsewhere a score is only how far the state leans its way."
    )
    for place, step in enumerate(stream(model, model.processor, prompt, layer=probe.layer, max_new_tokens=tokens)):
        score = probe.score(step.state[None])
        mark = "refusal" if place == line and probe.fired(score) else ""
        text = visible(step.text).replace("\n", "\\n").replace("\t", "\\t")
        console.print(f"{score.item():+8.2f} {torch.sigmoid(score).item():6.3f} {mark:7} |{text}")
