"""Every notebook runs from top to bottom, agrees with its paired script, and is stored without outputs."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
NAMES = pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)


@NAMES
def test_pair_agrees_and_holds_no_output(script):
    stored = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    paired = jupytext.read(script)
    assert [(c.cell_type, c.source) for c in stored.cells] == [(c.cell_type, c.source) for c in paired.cells]
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in stored.cells)


@NAMES
@pytest.mark.timeout(240)
def test_notebook_runs(script, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
    figures = [data for cell in notebook.cells for output in cell.get("outputs", []) for data in output.get("data", {})]
    assert "application/vnd.plotly.v1+json" in figures, "a figure displays itself"
