import time

import pytest

from interp.judges.family import family_refuses, judged_families
from interp.prompts.families import RefusalFamily, decoy_names, family_names, load_decoys, load_family

RUDE = RefusalFamily("rude", ("Go away and never return.", "Nope."))
CURT = RefusalFamily("curt", ("Nope.", "Not today, thanks."))


def test_every_bundled_phrase_is_known_as_its_family() -> None:
    for family in judged_families():
        assert {family_refuses(phrase) for phrase in family.phrases} == {family.name}


def test_evasion_is_judged_only_when_asked_for() -> None:
    assert "evasion" in family_names()
    assert "evasion" not in [family.name for family in judged_families()]
    assert family_refuses("No comment.") is None
    assert family_refuses("No comment.", [load_family("evasion")]) == "evasion"


@pytest.mark.parametrize(
    ("response", "name"),
    [
        ("I\u2019m SORRY, but there is more to it.", "apology"),
        ("我不能帮", "inability.zh"),
        ("Sure! Here it is.", None),
        ("", None),
        ("...", None),
    ],
)
def test_the_opening_decides(response: str, name: str | None) -> None:
    assert family_refuses(response) == name


def test_the_first_family_of_those_given_wins() -> None:
    assert family_refuses("Nope!", [RUDE, CURT]) == "rude"
    assert family_refuses("Nope!", [CURT, RUDE]) == "curt"
    assert family_refuses("Nope, never.", [CURT, RUDE]) is None
    assert family_refuses("Sorry, but I can't help.", []) is None


def test_the_same_as_asking_every_family() -> None:
    texts = [d for name in decoy_names() for d in load_decoys(name)]
    texts += [p for name in family_names() for p in load_family(name).phrases]
    families = judged_families()
    for text in texts[::30]:
        for written in (text, f"{text.upper()} And then some."):
            assert family_refuses(written) == next((f.name for f in families if f.opens(written)), None)


def test_thousands_of_responses_take_no_time() -> None:
    family_refuses("warm")
    start = time.perf_counter()
    for i in range(5000):
        family_refuses(f"Here is number {i} of a long list of answers, each of them different.")
    assert time.perf_counter() - start < 2
