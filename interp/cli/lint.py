"""`interp lint`: what of a prompt set tells harmful from harmless without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli import inputs, options
from interp.cli.options import reported

if TYPE_CHECKING:
    import pandas as pd

    from interp.prompts import PromptSet
    from interp.prompts.lint import Lint
    from interp.prompts.matching import Match


@reported
def lint(
    prompts: options.Prompts,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for the matched subset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    label: options.Label = None,
    text_column: options.TextColumn = None,
    offline: options.Offline = False,
    seed: options.Seed = 0,
) -> None:
    """Can harmful be told from harmless without a model? Looks for leaks and duplicates, proposes a matched subset."""
    import json

    from interp.console import notify, show, visible
    from interp.console import out as console
    from interp.prompts.lint import lint as look

    chosen = inputs.prompts(prompts, label, text_column, None, offline)
    found = look(chosen, seed=seed)
    if as_json:
        console.print(json.dumps(found.record(), indent=1, ensure_ascii=True))
    else:
        console.print(visible(f"{found.name}: {len(chosen)} prompt{'s' if len(chosen) > 1 else ''}"))
        if found.leaks:
            show(_table(found))
        for line in found.verdicts:
            console.print(f"- {visible(line)}")
    if out is not None:
        if found.match is None or not found.match.pairs:
            notify(f"{out} is not written: there is no matched subset.")
        else:
            _write(chosen, found.match, out)
            notify(f"{out}: {2 * len(found.match.pairs)} prompts in {len(found.match.pairs)} pairs.")


def _table(found: "Lint") -> "pd.DataFrame":
    import pandas as pd

    from interp.prompts.verdicts import shown

    matched = {leak.surface: shown(leak.auroc) for leak in found.match.leaks} if found.match else {}
    rows = [
        {
            "surface": leak.surface,
            "AUROC": shown(leak.auroc),
            "": "leaks" if leak.found else "",
            "in the matched subset": matched.get(leak.surface, "-"),
            "what differs": leak.evidence,
        }
        for leak in found.leaks
    ]
    return pd.DataFrame(rows)


def _write(prompts: "PromptSet", match: "Match", path: Path) -> None:
    """Writes the subset so that it reads back as it was; conversations have a column of their own."""
    import json
    from dataclasses import asdict

    from interp.errors import UsageError

    subset = match.subset(prompts)
    frame = subset.frame()
    if any(len(p.messages) > 1 for p in subset):
        frame["messages"] = [json.dumps([asdict(m) for m in p.messages], ensure_ascii=False) for p in subset]
    number = {prompt_id: n for n, pair in enumerate(match.pairs, 1) for prompt_id in pair}
    frame["pair"] = [number[p.id] for p in subset]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
    except OSError as error:
        raise UsageError(f"--out {str(path)!r} can not be written: {error}. Choose another file.") from error
