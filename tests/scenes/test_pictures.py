"""The scenes set: its catalogue, drawing and splits, on small packages made here."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from operator import attrgetter

import pytest

from interp.errors import FetchError
from interp.scenes import pictures
from interp.scenes.catalogue import SCENES, concepts
from interp.scenes.pictures import bundled_pairs, draw_style, pictures_folder, png
from interp.scenes.styles import STYLES

SQUARE = '<rect x="2" y="2" width="8" height="8" fill="{colour}"/>'


def svg(colour):
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12">{SQUARE.format(colour=colour)}</svg>'


def tarball(folder, name, files):
    path = folder / f"{name}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in files.items():
            info = tarfile.TarInfo(f"package/{member}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def collection(name_of):
    """An Iconify collection with every concept but the spoon, and one drawing through an alias."""
    drawn = [c for c in concepts() if name_of(c) and c.caption != "spoon"]
    icons = {name_of(c): {"body": SQUARE.format(colour=f"#{i:02x}4080")} for i, c in enumerate(drawn)}
    last, body = icons.popitem()
    whole = {"icons": {**icons, "other": body}, "aliases": {last: {"parent": "other"}}, "width": 12, "height": 12}
    return {"icons.json": json.dumps(whole)}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    fluent = {
        f"icons/{s}/{c.fluent}.svg": svg("#204080") for s in ("flat", "modern", "high-contrast") for c in concepts()
    }
    made = {}
    for style in STYLES:
        if style.name == "openmoji":
            files = {f"color/svg/{c.code}.svg": svg("#808020") for c in concepts()}
            files["color/svg/1F595-1F3FF.svg"] = svg("#000000")
        elif style.folder:
            files = fluent
        else:
            own = style.name if style.name in ("fxemoji", "streamline") else "icon"
            files = collection(attrgetter(own))
        path = tarball(folder, style.name, files)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        made[style.name] = replace(style, package=replace(style.package, sha256=digest)), path
    return made


@pytest.fixture
def registry(packages, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr(pictures, "STYLES", tuple(style for style, _ in packages.values()))
    paths = {style.package.sha256: path for style, path in packages.values()}
    fetched = []

    def fetch(package, folder, notify):
        fetched.append(package.name)
        return paths[package.sha256]

    monkeypatch.setattr(pictures, "fetch", fetch)
    # A few concepts are enough: every scene with its twins.
    few = tuple(c for c in concepts() if c.scene or c.caption in ("dog", "camel"))
    monkeypatch.setattr(pictures, "concepts", lambda: few)
    return fetched


def test_the_catalogue_has_every_scene_with_twins_of_its_own():
    instances = {c.code: c.scene for c in concepts() if c.scene and not c.twin_of}
    assert set(instances.values()) == set(SCENES)
    for concept in concepts():
        assert (concept.scene is None) <= (concept.twin_of is None)
        assert concept.twin_of is None or instances[concept.twin_of] == concept.scene
        assert concept.known or concept.scene is None, "scenes and twins are known"
        assert concept.not_in <= {s.name for s in STYLES}
    captions = [c.caption for c in concepts()]
    assert len(set(captions)) == len(captions) and len({c.slug for c in concepts()}) == len(captions)
    assert "symbol" in SCENES[-1], "the reports say that it is a symbol"
    pistol, water = (next(c for c in concepts() if c.caption == n) for n in ("pistol", "water pistol"))
    assert pistol.code == water.code and pistol.not_in | water.not_in == {s.name for s in STYLES}
    assert not pistol.not_in & water.not_in, "no style draws both with one code point"


def test_styles_of_one_package_share_a_split_and_one_style_is_held_out():
    splits = {}
    for style in STYLES:
        splits.setdefault(style.package.name, set()).add(style.split)
    assert all(len(found) == 1 for found in splits.values())
    assert [s.name for s in STYLES if s.split == "test"] == ["openmoji"]
    assert [s.name for s in STYLES if s.split == "fresh"] == ["streamline"]
    assert all(len(s.package.sha256) == 64 for s in STYLES)


def test_splits_are_disjoint_by_concept_and_by_style(registry):
    pairs = bundled_pairs()
    by_split = {s: [p for p in pairs if p.split == s] for s in ("train", "validation", "test", "fresh", "unknown")}
    assert sum(map(len, by_split.values())) == len(pairs)
    seen = by_split["train"] + by_split["validation"]
    assert not {p.style for p in by_split["test"]} & {p.style for p in seen}
    assert not {p.style for p in by_split["fresh"]} & {p.style for p in seen + by_split["test"]}
    assert not {p.style for p in by_split["train"]} & {p.style for p in by_split["validation"]}
    assert not {p.concept for p in by_split["unknown"]} & {
        p.concept for s in by_split if s != "unknown" for p in by_split[s]
    }
    assert {p.scene for p in by_split["test"]} >= set(SCENES)
    assert bundled_pairs("test") == tuple(by_split["test"])
    assert len({p.id for p in pairs}) == len(pairs)


def test_twins_name_an_instance_of_their_scene_and_split(registry):
    pairs = {p.id: p for p in bundled_pairs()}
    twins = [p for p in pairs.values() if p.twin_of]
    for twin in twins:
        other = pairs[twin.twin_of]
        assert other.label == "harmful" and twin.label == "harmless"
        assert other.scene == twin.scene
        # The fresh style has no middle finger and no knife, so that their twins stand beside those of another one.
        here = any(p.scene == twin.scene and p.label == "harmful" for p in pairs.values() if p.split == twin.split)
        assert here == (other.split == twin.split) and (here or twin.split == "fresh")
    assert pairs["water-pistol/noto"].twin_of == "pistol/noto-v1", "no style draws both"
    assert pairs["fork-and-knife/openmoji"].twin_of == "kitchen-knife/openmoji"


def test_a_skin_tone_is_another_picture_of_the_same_concept(registry):
    found = [p for p in bundled_pairs("test") if p.concept == "middle finger"]
    assert [p.id for p in found] == ["middle-finger/openmoji", "middle-finger-dark/openmoji"]
    assert {p.caption for p in found} == {"middle finger"}


def test_what_a_style_lacks_or_draws_as_something_else_is_left_out(registry):
    ids = {p.id for p in bundled_pairs()}
    assert "spoon/openmoji" in ids and "spoon/noto" not in ids
    assert "pistol/fxemoji" in ids and "water-pistol/fxemoji" not in ids


def test_pictures_are_drawn_once_and_damage_is_noticed(registry):
    folder = pictures_folder()
    count = len(registry)
    assert pictures_folder() == folder and len(registry) == count
    picture = next(folder.glob("noto/*.png"))
    good = picture.read_bytes()
    picture.write_bytes(good[:-1])
    assert (pictures_folder() / "noto" / picture.name).read_bytes() == good and len(registry) == 2 * count


def test_offline_nothing_is_fetched(registry):
    with pytest.raises(FetchError, match="offline"):
        bundled_pairs(offline=True)
    assert not registry


def test_drawing_is_deterministic_on_white_and_without_transparency(packages, tmp_path):
    from PIL import Image

    assert png(svg("#ff0000")) == png(svg("#ff0000")) != png(svg("#ff0001"))
    picture = Image.open(io.BytesIO(png(svg("#ff0000"), pixels=12)))
    assert picture.mode == "RGB" and picture.size == (12, 12)
    assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((6, 6)) == (255, 0, 0)
    style, path = packages["openmoji"]
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        draw_style(style, path, tmp_path / place, concepts()[:3])
    first, second = ([p.read_bytes() for p in sorted((tmp_path / x).rglob("*.png"))] for x in "ab")
    assert first == second and len(first) == 3
