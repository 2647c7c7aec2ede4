import pytest

from interp.errors import UsageError
from interp.prompts.families import family_names, load_family


def test_the_apology_family_has_forty_distinct_phrasings():
    family = load_family("apology")
    assert len(set(family.phrases)) == len(family.phrases) >= 40
    assert all(family.opens(phrase) for phrase in family.phrases)


@pytest.mark.parametrize("response", ["I\u2019m sorry, but I have a question", "SORRY, I can't.", "sorry but i won't"])
def test_an_opening_is_known_in_any_spelling(response):
    assert load_family("apology").opens(response)


@pytest.mark.parametrize("response", ["", "Sure! Here is how", "The word sorry is", "I'm happy to help", "..."])
def test_other_answers_are_not_refusals(response):
    assert not load_family("apology").opens(response)


def test_unknown_family_names_the_known_ones():
    with pytest.raises(UsageError, match="apology"):
        load_family("rude")
    assert "apology" in family_names()
