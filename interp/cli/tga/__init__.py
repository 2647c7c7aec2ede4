"""`interp tga`: trains projectors by text-guided alignment, and puts what they do side by side."""

import typer

from interp.cli.tga.evaluate import evaluate
from interp.cli.tga.train import train

app = typer.Typer(no_args_is_help=True, help="Text-guided alignment of a projector: train it, and see what it does.")
app.command()(train)
app.command("eval")(evaluate)
