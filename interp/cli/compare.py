"""`interp compare`: what changed between two finished studies."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import reported

SHORT = 24
"""Characters of a digest that are printed; the page holds all."""


@reported
def compare(
    first: Annotated[Path, typer.Argument(help="The folder of a finished study, such as a run folder of scan.")],
    second: Annotated[Path, typer.Argument(help="The folder of the other.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a page with both curves here.")] = None,
) -> None:
    """What changed between two runs, two models or two versions of the code: identity, claims and curves."""
    from interp.comparison import compare as compared
    from interp.comparison_report import claim_table, comparison_study, identity_table
    from interp.console import out as console
    from interp.console import show, visible
    from interp.errors import UsageError
    from interp.report import read_study, write_study

    if out is not None and out.resolve() in (first.resolve(), second.resolve()):
        raise UsageError(f"--out {out}: is one of the studies compared, which would be replaced; give another folder.")
    found = compared(read_study(first), read_study(second))
    page = comparison_study(found)
    if found.identity:
        show(identity_table(found.identity).map(lambda text: text if len(text) <= SHORT else f"{text[:SHORT]}..."))
    if found.claims and not found.same_findings:
        show(claim_table(found.claims)[["claim", "first", "second"]])
    for line in page.headlines:
        console.print(f"- {visible(line)}")
    if out is not None:
        console.print(f"\nreport: {write_study(page, out)}")
