"""`interp models`: list the demo models, fetch one."""

import typer

from interp.cli import options
from interp.cli.options import reported

app = typer.Typer(no_args_is_help=True, help="Demo models: list them, fetch them.")


@app.command("list")
@reported
def list_models() -> None:
    """Name the demo models."""
    from interp.console import out as console
    from interp.models.demo import demo_names

    for name in demo_names():
        console.print(name)


@app.command()
@reported
def fetch(model: options.Model = "demo:base") -> None:
    """Fetch a model, so that it can be used offline; prints its folder."""
    from interp.console import notify
    from interp.console import out as console
    from interp.models.source import resolve

    console.print(str(resolve(model, notify=notify).folder))
