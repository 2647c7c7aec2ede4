"""`interp scenes`: the bundled pictures of the seven scenes, drawn once."""

import typer

from interp.cli import options
from interp.cli.options import reported

app = typer.Typer(no_args_is_help=True, help="Pictures of the seven scenes with harmless twins: fetch them, list them.")


@app.command()
@reported
def fetch(offline: options.Offline = False) -> None:
    """Fetch the drawings and draw the pictures, so that they can be used offline; prints their folder."""
    from interp.console import notify
    from interp.console import out as console
    from interp.scenes.pictures import pictures_folder

    console.print(str(pictures_folder(offline=offline, notify=notify)))


@app.command("list")
@reported
def list_styles() -> None:
    """Name the drawing styles: the split they are for, where they come from and under which licence."""
    from interp.console import out as console
    from interp.scenes.catalogue import SCENES, concepts
    from interp.scenes.styles import STYLES

    for style in STYLES:
        package = style.package
        console.print(f"{style.name:22} {style.split:12} {package.name} {package.version} ({package.licence})")
    known = [c for c in concepts() if c.known]
    console.print(f"{len(known)} known concepts, {len(concepts()) - len(known)} held out; scenes: {', '.join(SCENES)}")
