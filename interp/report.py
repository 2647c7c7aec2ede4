"""One self-contained HTML page per study, and the tables beside it; opens offline, loads nothing, runs no user text."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.io
from plotly.offline import get_plotlyjs

from interp.errors import UsageError
from interp.ledger import AGAIN, read_claims, write_claims
from interp.study import Study

STUDY = "study.json"
DIGITS = 6
"""Significant digits of a number in the page; the files hold all."""


def write_study(study: Study, folder: Path | str, *, stamp: dict[str, Any] | None = None) -> Path:
    """Writes report.html, heatmap.html, claims.json and tables/ into a run folder.

    Args:
        study: the result of an analysis.
        folder: the run folder; files of an older study there are replaced.
        stamp: what decided the result; `finished_study` compares it.

    Returns:
        The path of report.html.

    Raises:
        ValueError: when a claim does not say where it comes from; see `interp.study.Claim.record`.
    """
    folder = Path(folder)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).unlink(missing_ok=True)
    for name, frame in study.tables.items():
        frame.to_parquet(tables / f"{name}.parquet", index=False)
        frame.to_csv(tables / f"{name}.csv", index=False)
    write_claims(study.claims, folder)
    heatmaps = [name for name in study.figures if "heatmap" in name]
    (folder / "heatmap.html").write_text(render(study, only=heatmaps), "utf-8")
    report = folder / "report.html"
    report.write_text(render(study), "utf-8")
    words = {"title": study.title, "headlines": study.headlines, "notes": study.notes, "about": study.about}
    summary = {"stamp": stamp or {}, **words, "tables": list(study.tables)}
    # Written last: its presence says that everything above is complete.
    (folder / STUDY).write_text(json.dumps(summary, indent=1, ensure_ascii=False), "utf-8")
    return report


def finished_study(folder: Path, stamp: dict[str, Any]) -> bool:
    """Whether a complete study with this stamp is in a run folder."""
    try:
        found = json.loads((folder / STUDY).read_text("utf-8"))["stamp"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(found == stamp) and (folder / "report.html").exists()


def read_headlines(folder: Path) -> list[str]:
    """The headlines of the study in a run folder."""
    return list(json.loads((folder / STUDY).read_text("utf-8"))["headlines"])


def read_study(folder: Path | str) -> Study:
    """The finished study in a run folder, without its figures; ``about`` holds every field of its stamp too.

    Raises:
        UsageError: when there is no finished study, or an older version wrote it.
        StudyError: when its claims are not those that were written; see `interp.ledger.read_claims`.
    """
    path = Path(folder) / STUDY
    try:
        found = json.loads(path.read_text("utf-8"))
        headlines, notes = tuple(found["headlines"]), tuple(found["notes"])
        about = {**found["about"], **_flat(found["stamp"])}
        claims = read_claims(folder)
        tables = {name: pd.read_parquet(path.parent / "tables" / f"{name}.parquet") for name in found["tables"]}
        return Study(found["title"], headlines, notes, tables=tables, figures={}, claims=claims, about=about)
    except OSError as error:
        raise UsageError(
            f"{folder}: no finished study is there ({error}). Give a folder in which a command has written report.html "
            f"and {STUDY}, such as the run folder that `interp scan` prints."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: an older version wrote it, or it was damaged ({type(error).__name__}: {error}); {AGAIN}."
        ) from error


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """The leaves of a stamp as text, each by its way there, such as ``models[demo:base].weights``."""
    if isinstance(value, dict):
        leaves = {f"{name}.{key}" if name else str(key): inner for key, inner in value.items()}
    elif isinstance(value, list):
        keys = [one.get("name", i) if isinstance(one, dict) else i for i, one in enumerate(value)]
        keys = list(range(len(value))) if len(set(keys)) < len(keys) else keys
        leaves = {f"{name}[{key}]": inner for key, inner in zip(keys, value, strict=True)}
    else:
        return {name: str(value)}
    return {k: v for key, inner in leaves.items() for k, v in _flat(inner, key).items()}


def render(study: Study, *, only: list[str] | None = None) -> str:
    """The page as a string; ``only`` names the figures of a page without claims and without the other tables."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("interp") / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    chosen = study.figures if only is None else {name: study.figures[name] for name in only}
    shown = study.tables if only is None else {name for figure in chosen for name in study.drawn_from.get(figure, ())}
    return environment.get_template("report.html.jinja").render(
        study=study,
        figures=[
            (name, _div(figure), caption, study.drawn_from.get(name, ())) for name, (figure, caption) in chosen.items()
        ],
        tables={name: _embedded(study.tables[name]) for name in study.tables if name in shown},
        whole=only is None,
        script=get_plotlyjs(),
    )


def _div(figure: Any) -> str:
    """The figure as HTML; plotly escapes the strings inside its JSON."""
    return str(
        plotly.io.to_html(
            figure, full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
        )
    )


def _embedded(frame: pd.DataFrame) -> str:
    """A table as JSON that can stand inside a script element; every text is stored once per column."""
    columns = [{"name": str(name), **_column(frame[name])} for name in frame.columns]
    text = json.dumps({"rows": len(frame), "columns": columns}, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _column(values: pd.Series) -> dict[str, Any]:
    """Numbers as they are, missing ones as null; all else as texts and the number of each row's text, -1 if missing."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        plain = values.astype("Float64").to_numpy(dtype="float64", na_value=float("nan"))
        return {"values": [float(f"{v:.{DIGITS}g}") if abs(v) < float("inf") else None for v in plain]}
    codes, texts = pd.factorize(values.map(str, na_action="ignore"))
    return {"codes": codes.tolist(), "texts": [str(t) for t in texts]}
