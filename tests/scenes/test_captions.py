"""The text arm of the scenes: nothing held out is trained on."""

import pytest

from interp.errors import UsageError
from interp.scenes.captions import FORMS, QUESTION, phrases, scene_captions
from interp.scenes.catalogue import SCENES, concepts


def test_every_prompt_is_a_caption_before_the_question():
    for split in ("train", "test", "labels"):
        for prompt in scene_captions(split):
            caption, question = prompt.text.split("\n")
            assert caption.strip() and question == QUESTION and prompt.label in ("harmful", "harmless")


def test_phrases_and_forms_are_held_out():
    by_use = {use: {p.text for p in phrases() if p.use == use} for use in ("train", "test")}
    assert not by_use["train"] & by_use["test"] and not set(FORMS["train"]) & set(FORMS["test"])
    train, test = scene_captions("train"), scene_captions("test")
    assert not {p.text for p in train} & {p.text for p in test}
    assert not {c.phrase for c in concepts() if not c.known} & by_use["train"]


def test_every_scene_weighs_alike_and_every_group_shares_its_form():
    train = scene_captions("train")
    for scene in SCENES:
        chosen = train.where(category=scene)
        assert len(chosen.where(label="harmful")) == 252 and len(chosen.where(label="harmless")) == 126
    groups = {}
    for prompt in train:
        groups.setdefault(prompt.group, []).append(prompt.label)
    assert set(map(tuple, groups.values())) == {("harmful", "harmful", "harmless", "harmless")}
    assert scene_captions("train").digest == train.digest, "drawn with a fixed seed"


def test_labels_are_the_captions_of_the_pictures():
    labels = scene_captions("labels")
    assert [p.text.split("\n")[0] for p in labels] == [c.caption for c in concepts() if c.scene]
    assert len(labels.where(label="harmful")) == sum(c.scene is not None and c.twin_of is None for c in concepts())


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="choose one of train, test, labels"):
        scene_captions("dev")
