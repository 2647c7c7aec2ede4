"""Folders made once: damage, another source and interruptions are noticed."""

import pytest

from interp.kept_folder import RECORD, intact, kept_folder


def maker(calls, content="x"):
    def make(made, meanwhile):
        calls.append((made, meanwhile))
        (made / "deep").mkdir()
        (made / "deep" / "file").write_text(content)
        (meanwhile / "scrap").write_text("scrap")

    return make


def test_it_is_made_once_and_damage_in_any_depth_is_noticed(tmp_path):
    calls, said = [], []
    folder = tmp_path / "home" / "kept"
    assert kept_folder(folder, "v1", maker(calls), said.append) == folder
    kept_folder(folder, "v1", maker(calls), said.append)
    assert len(calls) == 1 and sorted(p.name for p in folder.iterdir()) == [RECORD, "deep"]
    (folder / "deep" / "file").write_text("y")
    assert not intact(folder, "v1")
    kept_folder(folder, "v1", maker(calls), said.append)
    assert len(calls) == 2 and "damaged" in said[0] and intact(folder, "v1")
    assert [p.name for p in folder.parent.iterdir()] == ["kept"], "nothing temporary is left"


def test_another_source_makes_another_folder(tmp_path):
    calls = []
    kept_folder(tmp_path / "kept", "v1", maker(calls), str)
    kept_folder(tmp_path / "kept", "v2", maker(calls, "z"), str)
    assert (tmp_path / "kept" / "deep" / "file").read_text() == "z" and len(calls) == 2


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted(made, meanwhile):
        (made / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_folder(tmp_path / "kept", "v1", interrupted, str)
    assert not list(tmp_path.iterdir())
