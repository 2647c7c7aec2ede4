"""The command line: composes the library, prints, and turns errors into messages and exit codes.

Exit codes: 0 ok, 2 usage, 3 bad input, 4 model, 5 cache, 6 training, 130 interrupted.
"""

import typer

from interp.cli import (
    align,
    bench,
    compare,
    families,
    harvest,
    judge,
    lint,
    models,
    probe,
    scan,
    scenes,
    sensitivity,
    tga,
)

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Mechanistic interpretability of safety in language models.",
)
# The order is that of `interp --help`.
app.command()(scan.scan)
app.command()(sensitivity.sensitivity)
app.command()(align.align)
app.command()(compare.compare)
app.command()(harvest.harvest)
app.command()(harvest.verify)
app.command()(judge.judge)
app.command()(lint.lint)
app.add_typer(probe.app, name="probe")
app.add_typer(families.app, name="families")
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.add_typer(scenes.app, name="scenes")
app.add_typer(tga.app, name="tga")
