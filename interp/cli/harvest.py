"""`interp harvest` and `interp verify`: fill an activation cache, and check one."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli import inputs, options
from interp.cli.options import reported


@reported
def harvest(
    model: options.Model,
    prompts: options.Prompts,
    out: options.Out = Path("runs"),
    positions: Annotated[
        str, typer.Option(help="Comma-separated, such as t_inst, all_post, image_mean, caption_mean.")
    ] = "t_inst,t_post",
    layers: Annotated[str, typer.Option(help="Such as 0,4,8-12; all if left out.")] = "",
    storage: Annotated[str, typer.Option(help="bf16, fp32 or auto for the compute dtype.")] = "auto",
    part: Annotated[str, typer.Option(help="i/n: do the i-th of n parts, counted from 0.")] = "0/1",
    into: Annotated[Path | None, typer.Option(help="Go on with this run folder, if nothing differs.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Check finished shards and redo damaged ones.")] = False,
    on_nonfinite: Annotated[str, typer.Option(help="At NaN or infinity: error or keep.")] = "error",
    strict_batch: Annotated[bool, typer.Option("--strict-batch", help="Fail instead of splitting batches.")] = False,
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
) -> None:
    """Compute the states of a model on prompts once, into a checksummed cache that everything else reads."""
    from interp.cache import Capture
    from interp.console import out as console

    chosen = inputs.prompts(prompts, label, text_column, system, offline)
    found = (model, revision, adapter, offline, trust_remote_code)
    source, runtime = inputs.source(*found, backend, dtype, device, attention)
    capture = Capture(tuple(positions.split(",")), inputs.layers(layers), storage, token_budget)
    how = {
        "part": inputs.part(part),
        "repair": repair,
        "on_nonfinite": inputs.choice("--on-nonfinite", on_nonfinite, ("error", "keep")),
        "strict_batch": strict_batch,
        "keep_text": keep_text,
    }
    planned = inputs.planned(source, runtime, chosen, capture)
    console.print(str(inputs.run(planned, out, into=into, **how)))


@reported
def verify(run: Annotated[str, typer.Argument(help="A run folder or its URL.")]) -> None:
    """Check every byte of a run."""
    from interp.cache import ActivationCache
    from interp.console import notify
    from interp.console import out as console

    cache = ActivationCache.open(run)
    faults = cache.verify()
    for fault in faults:
        notify(f"error: {fault}")
    if faults:
        raise typer.Exit(faults[0].exit_code)
    console.print(f"{cache!r}: every byte is as it was written.")
