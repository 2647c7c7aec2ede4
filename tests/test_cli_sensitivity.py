"""`interp sensitivity` in process, on tiny models."""

import pytest
from typer.testing import CliRunner

from interp.cli import app
from tests.tiny import save_tiny

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [str(save_tiny(folder / name, seed=seed)) for seed, name in enumerate(("first", "second"))]


def test_models_that_never_refuse_are_told_so_and_what_was_measured_is_kept(models, tmp_path):
    prompts = tmp_path / "prompts.csv"
    rows = [f"p{i},Tell me about topic {i}.,{'harmful' if i % 2 else 'harmless'},c{i % 4}" for i in range(8)]
    prompts.write_text("\n".join(["id,text,label,category", *rows]), "utf-8")
    arguments = ["sensitivity", *models, "--prompts", str(prompts), "--reader", models[0], "--out", str(tmp_path / "r")]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2, found.output
    assert "nothing to detect" in found.output
    assert len(list((tmp_path / "r").glob("*/responses.json"))) == 2
    assert not list((tmp_path / "r").glob("sensitivity-*"))


def test_one_model_is_refused_before_anything_is_loaded(models, tmp_path):
    found = CliRunner().invoke(app, ["sensitivity", models[0], "--reader", models[0], "--out", str(tmp_path)])
    assert found.exit_code == 2 and "two or more" in found.output
    assert not list(tmp_path.iterdir())
