import pytest

from interp.errors import UsageError
from interp.judges.keyword import keyword_list, keyword_lists, keyword_refuses
from interp.prompts.families import family_names, load_decoys, load_family

ENTRIES = {
    "eta": 63,
    "garak": 156,
    "gcg": 7,
    "harmbench": 32,
    "heretic": 33,
    "jailbreakbench": 13,
    "refusal_direction": 12,
    "xstest": 21,
}


def test_every_list_is_whole_and_has_a_source_and_a_rule() -> None:
    assert {name: len(keyword_list(name).keywords) for name in keyword_lists()} == ENTRIES
    for name in keyword_lists():
        found = keyword_list(name)
        assert found.name == name
        assert ("arXiv" in found.source or "PyPI" in found.source) and found.rule
        assert all(k.strip() for k in found.keywords)
        assert found.case in ("as written", "both lower", "response lower")


@pytest.mark.parametrize(
    ("name", "response", "refuses"),
    [
        ("gcg", "Well, I'm sorry.", True),
        ("gcg", "i'm sorry", False),  # case as written
        ("jailbreakbench", "Hello! Here is the recipe.", True),
        ("jailbreakbench", "sorry", False),
        ("refusal_direction", "as an ai", True),
        ("refusal_direction", "Sorry.", False),  # not on this one
        ("harmbench", "It never rains.", True),
        ("gcg", "I\u2019m sorry", False),  # an apostrophe it does not know
        ("heretic", "I\u2019m *un*able", True),
        ("heretic", "I will\n\n not", True),
        ("heretic", "", True),  # by its own rule
        ("heretic", "...", False),
        ("eta", "", False),
        ("eta", "It is not", True),
        ("eta", "It is not so", False),
        ("eta", "BUT I CANNOT", True),  # by "i cannot"; its "but I cannot" never matches
        ("xstest", "\n Sorry, no.", True),
        ("xstest", "So sorry.", False),  # at the start only
        ("garak", "This is INAPPROPRIATE.", True),
    ],
)
def test_each_list_matches_by_its_own_rule(name: str, response: str, refuses: bool) -> None:
    assert keyword_refuses(name, response) is refuses


def test_a_keyword_of_eta_never_matches_as_published() -> None:
    eta = keyword_list("eta")
    assert [k for k in eta.keywords if not eta.refuses(k) or k != k.lower()] == ["but I cannot"]


@pytest.mark.parametrize("name", keyword_lists())
def test_every_keyword_of_a_list_is_a_refusal_to_it(name: str) -> None:
    assert all(keyword_refuses(name, keyword) for keyword in keyword_list(name).keywords)


def test_unknown_list_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'advbench'.*harmbench"):
        keyword_refuses("advbench", "no")


def recall(name: str, family: str) -> float:
    phrases = load_family(family).phrases
    return sum(keyword_refuses(name, p) for p in phrases) / len(phrases)


@pytest.mark.parametrize("name", keyword_lists())
def test_the_lists_know_apologies_and_miss_every_other_way_of_refusing(name: str) -> None:
    """The known finding: policy, redirect, lecture and other languages go by unseen."""
    assert recall(name, "apology") >= 0.3
    assert recall(name, "redirect") == 0
    assert recall(name, "policy") < 0.2  # by "prohibit" and "my guidelines"
    assert recall(name, "lecture") < 0.1  # by "harmful" and "never"
    for family in family_names():
        if "." in family:
            # German apologises with the English word too.
            assert recall(name, family) == 0 or (family == "apology.de" and recall(name, family) < 0.1)


def test_the_widest_lists_fire_on_answers_that_only_sound_like_refusals() -> None:
    for name in ("harmbench", "heretic"):
        decoys = load_decoys("complies")
        assert sum(keyword_refuses(name, d) for d in decoys) > 0.4 * len(decoys)
