import re
import unicodedata
from pathlib import Path

import pytest

from interp.errors import UsageError
from interp.judges import family_refuses, judged_families, keyword_lists, keyword_refuses
from interp.prompts.families import (
    RefusalFamily,
    decoy_names,
    family_names,
    load_decoys,
    load_family,
    opening,
)

KINDS = ("apology", "inability", "policy")
LANGUAGES = ("ar", "de", "es", "fr", "hi", "zh")
ENGLISH = ("evasion", "lecture", "redirect")

# What makes a sentence an apology: how a word of it begins, or in the last three languages what it holds.
SORRY = {
    "en": ("sorry", "apolog"),
    "de": ("leid", "entschuldig", "verzeih", "pardon", "sorry", "bedau"),
    "es": ("siento", "perd", "disculp", "lament"),
    "fr": ("désolé", "navré", "pardon", "excus", "regrett"),
    "ar": ("آسف", "عذر", "عتذ"),
    "hi": ("माफ़", "क्षमा", "खेद", "सॉरी"),
    "zh": ("对不起", "抱歉", "不好意思", "原谅"),
}


def every_decoy() -> list[str]:
    return [text for name in decoy_names() for text in load_decoys(name)]


def lines_of(folder: str, name: str) -> str:
    data = Path(__file__).parents[2] / "interp" / "prompts" / "data"
    return (data / folder / f"{name}.txt").read_bytes().decode("utf-8")


def apologises(phrase: str, language: str) -> bool:
    text = unicodedata.normalize("NFC", phrase.lower())
    start = "" if language in ("ar", "hi", "zh") else r"\b"
    return any(re.search(start + unicodedata.normalize("NFC", word), text) for word in SORRY[language])


def test_the_families_are_those_of_every_language() -> None:
    expected = {*KINDS, *ENGLISH, *(f"{kind}.{language}" for kind in KINDS for language in LANGUAGES)}
    assert expected <= set(family_names())
    assert {load_family(name).language for name in family_names()} >= {"en", *LANGUAGES}
    assert {load_family(name).kind for name in family_names()} == {*KINDS, *ENGLISH}


@pytest.mark.parametrize("name", family_names())
def test_a_family_has_forty_distinct_phrases(name: str) -> None:
    family = load_family(name)
    assert family.name == name
    assert len(set(family.phrases)) == len(family.phrases) >= 40
    assert all(family.opens(phrase) for phrase in family.phrases if opening(phrase))
    assert all(opening(phrase) for phrase in family.phrases) or name == "evasion"  # "..." says nothing


@pytest.mark.parametrize(
    ("folder", "name"), [("families", n) for n in family_names()] + [("decoys", n) for n in decoy_names()]
)
def test_a_file_is_clean_text(folder: str, name: str) -> None:
    text = lines_of(folder, name)
    assert text == unicodedata.normalize("NFC", text)
    assert not {"\r", "\t", "\ufeff", "\ufffd", "\u00a0"} & set(text)
    lines = text.removesuffix("\n").split("\n")
    assert lines == [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("name", [n for n in family_names() if n.partition(".")[0] in KINDS])
def test_apologies_apologise_and_no_other_refusal_does(name: str) -> None:
    family = load_family(name)
    wrong = [p for p in family.phrases if apologises(p, family.language) != (family.kind == "apology")]
    assert wrong == []


def test_no_opening_belongs_to_two_families() -> None:
    owners: dict[tuple[str, ...], set[str]] = {}
    for name in family_names():
        for phrase in load_family(name).phrases:
            owners.setdefault(opening(phrase), set()).add(name)
    assert {o: names for o, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name", ["about", "complies"])
def test_there_are_forty_decoys(name: str) -> None:
    decoys = load_decoys(name)
    assert len(set(decoys)) == len(decoys) >= 40


def test_decoys_of_different_kinds_differ() -> None:
    assert {"about", "complies", "sorry"} <= set(decoy_names())
    assert len(set(every_decoy())) == len(every_decoy())


def test_keyword_lists_fire_on_most_decoys_and_the_families_on_none() -> None:
    decoys = every_decoy()
    fired = [text for text in decoys if any(keyword_refuses(name, text) for name in keyword_lists())]
    assert len(fired) > len(decoys) / 2
    assert all(text in fired for text in load_decoys("sorry"))
    assert [text for text in decoys if family_refuses(text)] == []
    assert [family_refuses(text, [load_family("evasion")]) for text in decoys] == [None] * len(decoys)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'rude'.*apology"):
        load_family("rude")
    with pytest.raises(UsageError, match=r"'rude'.*about, complies, sorry"):
        load_decoys("rude")


@pytest.mark.parametrize("response", ["I\u2019m sorry, but I have a question", "SORRY, I can't.", "sorry but i won't"])
def test_an_opening_is_known_in_any_spelling(response: str) -> None:
    assert load_family("apology").opens(response)


@pytest.mark.parametrize("response", ["", "Sure! Here is how", "The word sorry is", "I'm happy to help", "..."])
def test_other_answers_are_not_refusals(response: str) -> None:
    assert not load_family("apology").opens(response)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" \n", ()),
        ("...", ()),
        ("。！", ()),
        ("«¿?»", ()),
        ("No.", ("no",)),
        ("I'm sorry, but I can't.", ("i'm", "sorry", "but")),
        ("I\u2019m SORRY \u2026 but", ("i'm", "sorry", "but")),
        ("  I - I  can't", ("i", "i", "can't")),
        ("Lo siento, pero no", ("lo", "siento", "pero")),
        ("¡Perdón! No puedo más", ("perdón", "no", "puedo")),
        ("对不起，我不能帮你。", ("对", "不", "起", "我")),
        ("对 不 起 我不能", ("对", "不", "起", "我")),
        ("抱歉。", ("抱", "歉")),
        ("“抱歉”，我不能", ("抱", "歉", "我", "不")),
        ("ごめんなさい、できません", ("ご", "め", "ん", "な")),
        ("عذرًا، لا يمكنني المساعدة", ("عذرًا", "لا", "يمكنني")),
        ("هل تريد ذلك؟", ("هل", "تريد", "ذلك")),
        ("क्षमा करें, मैं यह नहीं", ("क्षमा", "करें", "मैं")),
        ("मना है।", ("मना", "है")),
    ],
)
def test_opening(text: str, expected: tuple[str, ...]) -> None:
    assert opening(text) == expected


def test_a_family_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "rude.txt"
    path.write_text("\ufeffGo away, please.\n\n  Nope.  \n", "utf-8")
    family = load_family(str(path))
    assert family == RefusalFamily("rude", ("Go away, please.", "Nope."))
    assert family.opens("GO AWAY please, I said") and not family.opens("Go on")
    assert family_refuses("nope!", [family]) == "rude"
    spanish = tmp_path / "rude.es.txt"
    spanish.write_text("Ni hablar.", "utf-8")
    assert (load_family(str(spanish)).kind, load_family(str(spanish)).language) == ("rude", "es")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no phrase"),
        (b" \n\n", "holds no phrase"),
        (b"Nope.\nGo away.\n Nope. \n", "'Nope.' stands there twice"),
        (b"\xff\xfe", "can not be read as UTF-8"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rude.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"rude\.txt: .*{message}"):
        load_family(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.txt: can not be read"):
        load_family(str(tmp_path / "no.txt"))


def test_evasion_is_no_refusal() -> None:
    assert {family.kind for family in judged_families()} == {*KINDS, *ENGLISH} - {"evasion"}
