"""The arguments and options that commands share, and what every command does with an error."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

Model = Annotated[str, typer.Argument(help="Hub id, folder, or a demo name such as demo:apology.")]
Prompts = Annotated[
    str, typer.Argument(help="CSV, TSV, JSONL or JSON file, hf:DATASET[:CONFIG][:SPLIT], or twins[:SPLIT].")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder under which the run folder is made.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Lora = Annotated[
    Path | None, typer.Option("--adapter", help="A LoRA folder, or a trained projector's, on top of the model.")
]
Backend = Annotated[str, typer.Option(help="hooks, transformer_lens or nnsight.")]
Dtype = Annotated[str, typer.Option(help="bf16, fp32, fp16, or auto for the checkpoint's own.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")]
Attention = Annotated[str, typer.Option(help="sdpa, eager, flash_attention_2 or auto.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
RemoteCode = Annotated[
    str | None,
    typer.Option(help="Run the Python files of a model; must repeat the model's name.", metavar="MODEL"),
]
Label = Annotated[str | None, typer.Option(help="Label of prompts without one: harmful or harmless.")]
TextColumn = Annotated[str | None, typer.Option(help="The column that holds the prompt.")]
System = Annotated[str | None, typer.Option(help="A system message put before every prompt.")]
Budget = Annotated[int, typer.Option(min=1, help="Most tokens in one batch, padding counted.")]
KeepText = Annotated[bool, typer.Option("--keep-text", help="Store prompt texts in the run; they may be sensitive.")]
Question = Annotated[str, typer.Option(help="What is asked about every picture.")]
ASKED = "Describe this scene."
"""What is asked where nothing else is said."""
Seed = Annotated[int, typer.Option(min=0, help="Seed of bootstrap and permutations.")]

Command = TypeVar("Command", bound=Callable[..., Any])


def reported(command: Command) -> Command:
    """Turns the errors a user can cause into one message on standard error and the exit code that belongs to it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from interp.console import notify
        from interp.errors import InterpError

        try:
            return command(*args, **kwargs)
        except InterpError as error:
            notify(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]
