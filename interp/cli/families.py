"""`interp families`: list the refusal families, and see what a first-token lens can see of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli import options
from interp.cli.options import reported

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(no_args_is_help=True, help="Refusal families: list them, audit them for a model's vocabulary.")


@app.command("list")
@reported
def list_families() -> None:
    """Name the refusal families: kind, language, number of phrases."""
    import pandas as pd

    from interp.console import show
    from interp.prompts.families import family_names, load_family

    families = map(load_family, family_names())
    rows = [(f.name, f.kind, f.language, len(f.phrases)) for f in families]
    show(pd.DataFrame(rows, columns=["family", "kind", "language", "phrases"]))


@app.command()
@reported
def audit(
    model: options.Model,
    family: Annotated[
        list[str] | None,
        typer.Option(help="A family, or a .txt file of one phrase per line; may be repeated. All if left out."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file for what was found of every phrase.")] = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.RemoteCode = None,
) -> None:
    """To which phrases is a lens blind that looks at one token? Reads the model's tokenizer, not its weights.

    Every phrase is shown for families that are named; --csv writes them all.
    """
    from interp.console import notify, show, visible
    from interp.console import out as console
    from interp.models.family_audit import audit_families, headline, summarise
    from interp.models.load import load_tokenizer
    from interp.models.source import resolve
    from interp.prompts.families import family_names, load_family

    _check_csv(csv)
    families = [load_family(name) for name in dict.fromkeys(family or family_names())]
    _check_names([f.name for f in families])
    source = resolve(model, revision=revision, offline=offline, trust_remote_code=trust_remote_code, notify=notify)
    found = audit_families(load_tokenizer(source), families)
    if csv is not None:
        _write(found, csv)
    console.print(visible(headline(found)))
    show(_rounded(summarise(found)))
    if family:
        show(_flagged(found))


def _check_csv(csv: Path | None) -> None:
    from interp.errors import UsageError

    if csv is None:
        return
    if csv.suffix.lower() != ".csv":
        raise UsageError(f"--csv {str(csv)!r}: name a .csv file.")
    if csv.is_dir() or not csv.absolute().parent.is_dir():
        raise UsageError(f"--csv {str(csv)!r}: is a folder, or its folder is not there; name a file in one that is.")


def _write(found: "pd.DataFrame", csv: Path) -> None:
    from interp.console import notify
    from interp.errors import UsageError

    try:
        found.to_csv(csv, index=False, lineterminator="\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--csv {str(csv)!r}: can not be written: {error}.") from error
    notify(f"Wrote {len(found)} phrases to {csv}.")


def _check_names(names: list[str]) -> None:
    from interp.errors import UsageError

    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--family: two families are called {twice}; rename the file.")


def _rounded(summary: "pd.DataFrame") -> "pd.DataFrame":
    shares = {name: [f"{share:.0%}" for share in summary[name]] for name in ("split", "colliding", "invisible")}
    return summary.assign(**shares).rename(columns={"first_tokens": "first tokens"})


def _flagged(audit: "pd.DataFrame") -> "pd.DataFrame":
    """The phrases as a table to read: flags by name, the tokens of each opening as they read."""
    names = ["split", "invisible", "collides", "blind"]
    flags = [" ".join(n for n, on in zip(names, row, strict=True) if on) for row in audit[names].to_numpy().tolist()]
    # Which family a phrase is of goes without saying where there is only one.
    columns = ["phrase", "tokens"] if audit["family"].nunique() == 1 else ["family", "phrase", "tokens"]
    return audit[columns].assign(flags=flags, **{"collides with": audit["collides_with"]})
