"""The rules of the house that no linter knows; see CONTRIBUTING.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [p for p in (ROOT / n for n in ("interp", "analyses", "probes")) if p.is_dir()]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
MAX_MODULE, MAX_FUNCTION = 300, 60


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_fit_on_a_screen(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{path}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_loads_code_and_nothing_prints(path):
    banned_modules = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    banned_calls = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "print"}
    may_print = path.parts[-2] in ("organisms", "projector")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not banned_modules & {n.partition(".")[0] for n in names}, f"{path}:{node.lineno}"
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in banned_calls or (call == "print" and may_print), f"{path}:{node.lineno} {call}"
            assert "allow_pickle" not in {k.arg for k in node.keywords}


def test_no_module_is_named_after_nothing():
    nothing = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}
    assert not [path for path in MODULES if path.stem in nothing]


def imported_by(code):
    script = f"import sys\n{code}\nprint(' '.join(sorted(m.partition('.')[0] for m in sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


def test_help_imports_nothing_heavy():
    loaded = imported_by("from interp.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass")
    assert not loaded & {"torch", "transformers", "sklearn", "plotly", "pandas", "numpy"}


def test_a_report_needs_no_torch():
    assert not imported_by("import interp.tables, interp.figures, interp.report, interp.comparison_report") & {"torch"}


def test_no_library_is_imported_that_changes_the_process():
    code = "import interp.cache, interp.lens, interp.models.load, analyses.scan"
    assert not imported_by(code) & {"transformer_lens", "nnsight"}
