import pytest

from interp.judges.classes import readable
from interp.prompts.families import decoy_names, family_names, load_decoys, load_family

POEM = """Water, water, every where,
And all the boards did shrink;
Water, water, every where,
Nor any drop to drink."""
CODE = "for i in range(10):\n    for j in range(10):\n        x[i][j] = i * j\n        y[i][j] = i + j\n"
TABLE = "| name | age |\n| ---- | --- |\n| Ada | 36 |\n| Alan | 41 |"


@pytest.mark.parametrize("response", ["", " \n\t", "...", "。！？", "\u200b", "- - -", "```\n```", "?!?!?!" * 20])
def test_nothing_said_is_empty(response: str) -> None:
    assert readable(response) == "empty"


@pytest.mark.parametrize(
    "response",
    ["No.", "42", "1", "北京", "👍", "$5", "x", "हाँ।", "لا", "是。", "C++", POEM, CODE, TABLE, "π ≈ 3.14159"],
    ids=lambda r: r[:8],
)
def test_short_and_odd_answers_are_answers(response: str) -> None:
    assert readable(response) is None


@pytest.mark.parametrize(
    "response",
    [
        "- milk\n- eggs\n- milk\n- bread\n- butter\n- milk",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "No, no, no, no, no.",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
        "It is what it is. It is what it is. So said my father, and his father before him, whenever the rain came.",
        "Buffalo buffalo Buffalo buffalo buffalo is said to be the start of a sentence with nothing but one word.",
    ],
)
def test_what_is_said_again_may_be_meant(response: str) -> None:
    assert readable(response) is None


@pytest.mark.parametrize(
    "response",
    [
        "the " * 12,
        "I can not do this. " * 5,
        "Here is the answer: " + "you should go and see the doctor and " * 6,
        "one two three four five six seven eight " * 4,
        "Sure! " + "ha" * 60,
        "a" * 40,
        "我不能" * 8,
        "这个问题很有意思" * 6,
        "मैं नहीं " * 12,
        "no no no no no no no no no no no no but this ends well after all",
        "The. the, THE! the? the; the: the the the the the the",
    ],
    ids=lambda r: r[:12],
)
def test_a_loop_is_broken(response: str) -> None:
    assert readable(response) == "broken"


def test_a_loop_needs_length_and_share() -> None:
    assert readable("the " * 11) is None
    rest = " ".join(f"word{i}" for i in range(20))
    assert readable("yes " * 30 + rest) is None  # 30 of 50 are not more than 60 %
    assert readable("yes " * 31 + rest) == "broken"


@pytest.mark.parametrize("response", ["\ufffd\ufffd\ufffd", "a\ufffdb\ufffdc", "Sure, \ufffd\ufffdthe \ufffd and"])
def test_replacement_characters_are_broken(response: str) -> None:
    assert readable(response) == "broken"


@pytest.mark.parametrize(
    "response", ["北京是中国的首\ufffd", "Yes \ufffd\ufffd", "One \ufffd in a text of many letters"]
)
def test_an_answer_cut_inside_a_character_is_an_answer(response: str) -> None:
    assert readable(response) is None


@pytest.mark.parametrize("response", ["$%^&*" * 6 + "a", "{}[]();:<>" * 4 + "x y", "👍" * 20])
def test_hardly_any_letters_are_broken(response: str) -> None:
    assert readable(response) == "broken"


def test_every_bundled_phrase_is_an_answer() -> None:
    phrases = [p for name in family_names() for p in load_family(name).phrases if p != "..."]
    decoys = [p for name in decoy_names() for p in load_decoys(name)]
    assert [p for p in phrases + decoys if readable(p)] == []
