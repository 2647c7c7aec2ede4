"""Files of pairs: what is read, and every bad line named."""

import json

import pytest

from interp.errors import PromptFileError
from interp.prompts import Pair, read_pairs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("knife", "spoon", "dog"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(b"picture")
    return tmp_path


def write(folder, text, name="pairs.csv"):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_file_of_pairs_is_read_with_twins_found_by_image(folder):
    path = write(
        folder,
        "image,caption,scene,twin_of\n"
        "pictures/spoon.png,spoon,,pictures/knife.png\n"
        'pictures/knife.png,"knife, sharp",knife,\n'
        "pictures/dog.png,dog,,\n",
    )
    spoon, knife, dog = read_pairs(path)
    assert (spoon.id, knife.id, dog.id) == ("pairs-00001", "pairs-00002", "pairs-00003")
    assert spoon.twin_of == knife.id and spoon.scene == "knife"
    assert [p.label for p in (spoon, knife, dog)] == ["harmless", "harmful", "harmless"]
    assert knife == Pair("pairs-00002", str(folder / "pictures" / "knife.png"), "knife, sharp", "knife")
    assert dog.unit == "dog" and dog.scene is None


def test_ids_concepts_styles_and_splits_are_kept(folder):
    records = [
        {"id": "k", "image": "pictures/knife.png", "caption": "knife", "scene": "knife", "style": "photo"},
        {"id": "s", "image": "pictures/spoon.png", "caption": "spoon", "twin_of": "k", "concept": "c", "split": "test"},
    ]
    knife, spoon = read_pairs(write(folder, "\n".join(map(json.dumps, records)), "p.jsonl"))
    assert knife.style == "photo" and spoon.twin_of == "k"
    assert (spoon.concept, spoon.unit, spoon.split) == ("c", "c", "test")


def test_every_bad_line_is_named(folder):
    path = write(
        folder,
        "id,image,caption,scene,twin_of\n"
        "a,pictures/knife.png,knife,knife,\n"
        "b,pictures/none.png,nothing,,\n"
        "c,pictures/dog.png,,,\n"
        "d,../dog.png,dog,,\n"
        "e,pictures/dog.gif,dog,,\n"
        "a,pictures/dog.png,dog,,\n"
        "f,,dog,,\n",
    )
    with pytest.raises(PromptFileError) as caught:
        read_pairs(path)
    found = {problem.line: problem.reason for problem in caught.value.problems}
    assert sorted(found) == [3, 4, 5, 6, 7, 8]
    assert "not there" in found[3] and "caption" in found[4] and "below the folder" in found[5]
    assert ".png" in found[6] and "line 2" in found[7] and "image" in found[8]
    assert f"{path}:3: " in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("t,pictures/dog.png,dog,,nobody", "neither an id nor an image"),
        ("t,pictures/dog.png,dog,,t", "this line itself"),
        ("t,pictures/dog.png,dog,,s", "is a twin itself"),
        ("t,pictures/dog.png,dog,,d", "has no scene"),
        ("t,pictures/dog.png,dog,gun,k", "'knife'"),
    ],
)
def test_a_twin_must_be_the_twin_of_something_harmful(folder, row, reason):
    path = write(
        folder,
        "id,image,caption,scene,twin_of\n"
        "k,pictures/knife.png,knife,knife,\n"
        "s,pictures/spoon.png,spoon,,k\n"
        f"d,pictures/dog.png,dog,,\n{row}\n",
    )
    with pytest.raises(PromptFileError, match=reason) as caught:
        read_pairs(path)
    assert [p.line for p in caught.value.problems] == [5]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("image,scene\npictures/dog.png,x\n", "no column caption"), ("image,caption\n", "no pairs")],
)
def test_a_file_without_pairs_is_refused(folder, text, reason):
    with pytest.raises(PromptFileError, match=reason):
        read_pairs(write(folder, text))
