"""One self-contained HTML page per study, and the tables beside it; opens offline, loads nothing, runs no user text."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.io
from plotly.offline import get_plotlyjs

from interp.study import Study

STUDY = "study.json"


def write_study(study: Study, folder: Path | str, *, stamp: dict[str, Any] | None = None) -> Path:
    """Writes report.html, heatmap.html, claims.json and tables/ into a run folder.

    Args:
        study: the result of an analysis.
        folder: the run folder; files of an older study there are replaced.
        stamp: what decided the result; `finished_study` compares it.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).unlink(missing_ok=True)
    for name, frame in study.tables.items():
        frame.to_parquet(tables / f"{name}.parquet", index=False)
        frame.to_csv(tables / f"{name}.csv", index=False)
    records = [claim.record() for claim in study.claims]
    (folder / "claims.json").write_text(json.dumps(records, indent=1, ensure_ascii=False), "utf-8")
    heatmaps = [name for name in study.figures if "heatmap" in name]
    (folder / "heatmap.html").write_text(render(study, only=heatmaps), "utf-8")
    report = folder / "report.html"
    report.write_text(render(study), "utf-8")
    # Written last: its presence says that everything above is complete.
    summary = {"stamp": stamp or {}, "title": study.title, "headlines": study.headlines}
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


def render(study: Study, *, only: list[str] | None = None) -> str:
    """The page as a string; ``only`` names the figures of a page without tables and claims."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("interp") / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    chosen = study.figures if only is None else {name: study.figures[name] for name in only}
    return environment.get_template("report.html.jinja").render(
        study=study,
        figures=[(name, _div(figure), caption) for name, (figure, caption) in chosen.items()],
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
