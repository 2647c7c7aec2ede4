"""`interp scenes` and `interp models`: what they name and where they say that things are."""

from typer.testing import CliRunner

from interp.cli import app
from interp.scenes.styles import STYLES


def interp(*arguments):
    return CliRunner().invoke(app, arguments)


def test_styles_are_listed_with_their_licences_and_porn_is_called_a_symbol():
    listed = interp("scenes", "list").stdout
    assert all(f"{s.name} " in listed and s.package.licence in listed for s in STYLES)
    assert "porn-symbol" in listed


def test_offline_says_how_to_get_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    result = interp("scenes", "fetch", "--offline")
    assert result.exit_code == 4 and "interp scenes fetch" in result.stderr


def test_models_that_see_are_listed_when_they_ship():
    from interp.models.demo import llava_names

    listed = interp("models", "list").stdout.split()
    assert "demo:base" in listed and set(llava_names()) <= set(listed)
