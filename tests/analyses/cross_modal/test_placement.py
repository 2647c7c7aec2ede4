"""Planted reasons for not refusing: each picture is placed where it was put."""

import numpy as np
import pytest
import torch

from analyses.cross_modal.placement import (
    NOT_LINKED,
    NOT_PERCEIVED,
    PLACES,
    REFUSED,
    SUPPRESSED,
    UNREADABLE,
    Link,
    names,
    placed,
    placement_table,
    retrieved,
)
from interp.errors import UsageError

N, WIDTH, DEPTH = 60, 24, 6
UNITS = tuple(f"c{i // 3}" for i in range(N))
HARMFUL = np.arange(N) // 3 % 2 == 0


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def way():
    return torch.nn.functional.normalize(drawn(WIDTH, seed=9), dim=0)


def text_states(seed=0, *, strength=8.0):
    """Descriptions: harmful ones lie along a direction from layer 3 on."""
    states = drawn(N, DEPTH, WIDTH, seed=seed)
    states[:, 3:] += strength * torch.from_numpy(HARMFUL).float()[:, None, None] * way()
    return states


@pytest.mark.parametrize(
    ("answer", "caption", "expected"),
    [
        ("A kitchen knife on a table.", "kitchen knife", True),
        ("There is a Knife.", "kitchen knife", True),
        ("A wine glass.", "kitchen knife", False),
        ("A man is holding a gun.", "a man with a gun in the street", True),
        ("A man in a park.", "a man with a gun in the street", False),
        ("", "kitchen knife", False),
        ("the", "the", True),
        ("He begun to run.", "gun", False),
    ],
)
def test_naming_is_half_of_the_content_words_as_whole_words(answer, caption, expected):
    assert names(answer, caption) is expected


def test_a_picture_whose_state_is_its_caption_s_is_retrieved_whatever_the_offset():
    content = drawn(N // 3, WIDTH).repeat_interleave(3, 0)
    image, caption = content + 50 + 0.1 * drawn(N, WIDTH, seed=1), content + 0.1 * drawn(N, WIDTH, seed=2)
    assert retrieved(image, caption, UNITS).all()
    chance = retrieved(drawn(N, WIDTH, seed=3), caption, UNITS)
    assert chance.mean() < 0.3
    assert not retrieved(torch.ones(N, WIDTH), caption, UNITS).any()


def test_the_link_finds_the_layers_and_a_threshold_that_twins_seldom_pass():
    link = Link.of_text(text_states(), HARMFUL, UNITS)
    assert min(link.layers) >= 3 and link.separation[3:].min() > 4 * np.abs(link.separation[:3]).max()
    along = link.drift(text_states(), ~HARMFUL)
    assert along[HARMFUL].mean() == pytest.approx(1, abs=0.05) and abs(along[~HARMFUL].mean()) < 1e-9
    assert 0 < link.threshold < 0.6 and (along[~HARMFUL] > link.threshold).sum() <= 2  # of 30


def test_an_offset_of_the_whole_arm_is_no_drift():
    link = Link.of_text(text_states(), HARMFUL, UNITS)
    shifted = drawn(N, DEPTH, WIDTH, seed=5) + 30 * way()
    assert (link.drift(shifted, ~HARMFUL) > link.threshold).mean() < 0.2
    moved = shifted.clone()
    moved[torch.from_numpy(HARMFUL)] += 8 * way()
    found = link.drift(moved, ~HARMFUL) > link.threshold
    assert found[HARMFUL].mean() > 0.9 and found[~HARMFUL].mean() < 0.2


def test_a_direction_needs_both_kinds_of_two_concepts():
    with pytest.raises(UsageError, match="two concepts"):
        Link.of_text(text_states(), np.ones(N, dtype=bool), UNITS)
    with pytest.raises(UsageError, match="two concepts"):
        Link.of_text(text_states(), HARMFUL, ("one",) * N)


def test_every_picture_is_placed_once():
    refused = np.array([1, 0, 0, 0, 0, np.nan])
    perceived = np.array([True, False, True, True, False, True])
    drifted = np.array([True, False, False, True, True, True])
    found = placed(refused, perceived, drifted)
    assert found == [REFUSED, NOT_PERCEIVED, NOT_LINKED, SUPPRESSED, SUPPRESSED, UNREADABLE]
    table = placement_table(found, ["gun"] * 4 + ["porn"] * 2, symbolic=["porn"])
    assert table.groupby("scene")["count"].sum().to_dict() == {"gun": 4, "porn": 2}
    assert set(table["place"]) == set(PLACES) and (table["lo"] <= table["hi"]).all()
    assert table[table["scene"] == "porn"]["symbolic"].all()
