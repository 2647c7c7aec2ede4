"""`interp judge`: what several judges say of a file of responses, and how far they agree."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import options
from interp.cli.options import reported

if TYPE_CHECKING:
    import pandas as pd

    from interp.judges.agreement import Verdict


@reported
def judge(
    responses: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or JSON file with a column of responses.")],
    column: Annotated[str, typer.Option(help="The column that holds the responses.")] = "response",
    by: Annotated[str, typer.Option(help="Comma-separated judges; all if left out.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for the verdict on every response.")] = None,
    seed: options.Seed = 0,
) -> None:
    """Which responses are refusals? Asks refusal families and published keyword lists, and compares them.

    The columns `family` and `refused` are taken as the truth, `group` or `prompt` as what belongs together.
    """
    from interp.console import show
    from interp.judges import agreement_table, judge, kappa_matrix, refusal_rates
    from interp.judges.responses import read_responses

    chosen = _judges(by)
    _check_out(out, responses)
    table = read_responses(responses, column=column)
    verdicts = judge(list(table["response"]))
    unreadable = (verdicts["unreadable"] != "").to_numpy()
    asked = {name: verdicts[name].to_numpy(dtype=bool) for name in chosen}
    if out is not None:
        _write(verdicts[["unreadable", "opens_as", *chosen]], out)
    show(_counts(verdicts))
    show(_rates(refusal_rates(asked, unreadable=unreadable)))
    if len(chosen) > 1:
        pairs = agreement_table(asked, list(table["group"]), unreadable=unreadable, seed=seed)
        show(_numbered(kappa_matrix(pairs)))
        _say_range(pairs)
    if table["refused"].notna().any():
        _show_recall(table, asked, unreadable)


def _judges(by: str) -> list[str]:
    from interp.cli.inputs import choice
    from interp.judges import judges

    names = [name.strip() for name in by.split(",") if name.strip()]
    return [choice("--by", name, tuple(judges())) for name in dict.fromkeys(names)] or judges()


def _check_out(out: Path | None, responses: Path) -> None:
    from interp.errors import UsageError

    if out is None:
        return
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {str(out)!r}: name a .csv file.")
    if out.resolve() == responses.resolve():
        raise UsageError(f"--out {str(out)!r}: is the file of responses itself; name another.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {str(out)!r}: its folder is not there; make it first.")


def _write(verdicts: "pd.DataFrame", out: Path) -> None:
    """The texts are left out: they may be sensitive, and the row says which one is meant."""
    from interp.console import notify

    numbered = verdicts.set_axis(range(1, len(verdicts) + 1), axis=0)
    numbered.to_csv(out, index_label="row", lineterminator="\n", encoding="utf-8")
    notify(f"Wrote {len(verdicts)} verdicts to {out}.")


def _counts(verdicts: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    kinds = {"readable": "", "empty": "empty", "broken": "broken"}
    counts = [(kind, int((verdicts["unreadable"] == value).sum())) for kind, value in kinds.items()]
    return pd.DataFrame([*counts, ("all", len(verdicts))], columns=["responses", "n"])


def _rates(rates: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    rows = [(judge, _count(rate, n), _share(rate, lo, hi)) for judge, rate, lo, hi, n in _tuples(rates)]
    names = [f"{i} {row[0]}" for i, row in enumerate(rows, 1)]
    return pd.DataFrame(rows, columns=["judge", "refused", "share [95 %]"]).assign(judge=names)


def _numbered(matrix: "pd.DataFrame") -> "pd.DataFrame":
    """Kappa of every two judges by their numbers, so that many fit in a line."""
    numbers = [str(i) for i in range(1, len(matrix) + 1)]
    shown = matrix.map(lambda kappa: "-" if kappa != kappa else f"{kappa:.2f}").set_axis(numbers, axis=1)
    shown.insert(0, "κ", numbers)
    return shown


def _say_range(pairs: "pd.DataFrame") -> None:
    from interp.console import out as console

    known = _tuples(pairs.dropna(subset="kappa").sort_values("kappa", kind="stable"))
    for kind, place in (("least", 0), ("most", -1)) if known else ():
        first, second, kappa, lo, hi, *_ = known[place]
        interval = "" if lo != lo else f" [{lo:.2f}, {hi:.2f}]"
        console.print(f"{first} and {second} agree {kind}: kappa {kappa:.2f}{interval}")
    *_, n, left_out = _tuples(pairs)[0]
    console.print(f"compared on {n} responses; {left_out} empty or broken ones are left out")


def _show_recall(table: "pd.DataFrame", asked: "dict[str, Verdict]", unreadable: "Verdict") -> None:
    import pandas as pd

    from interp.console import show
    from interp.judges import recall_by_family

    known = table["refused"].notna().to_numpy()
    refused = table["refused"][known].to_numpy(dtype=bool)
    families = list(table["family"][known])
    verdicts = {name: verdict[known] for name, verdict in asked.items()}
    found = recall_by_family(verdicts, families, refused, unreadable=unreadable[known])
    rows = []
    # Judges of one family side by side, families in their order.
    for (measure, family), part in found.groupby(["measure", "family"], sort=False):
        what = "false alarms" if measure == "false alarms" else f"recall of {family or 'no family'}"
        rows += [(what, judge, _count(rate, n), _share(rate, lo, hi)) for judge, _, _, rate, lo, hi, n in _tuples(part)]
    show(pd.DataFrame(rows, columns=["measure", "judge", "found", "share [95 %]"]))


def _tuples(frame: "pd.DataFrame") -> list[tuple[Any, ...]]:
    return list(frame.itertuples(index=False, name=None))


def _count(rate: float, n: int) -> str:
    return f"{round(rate * n) if n else 0} of {n}"


def _share(rate: float, lo: float, hi: float) -> str:
    return "-" if rate != rate else f"{rate:.0%} [{lo:.0%}, {hi:.0%}]"
