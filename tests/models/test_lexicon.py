from typing import Any

import pytest

from interp.models.lexicon import Lexicon, compile_lexicon, whole_words
from interp.prompts.families import RefusalFamily, family_names, load_family
from tests.models.vocabularies import byte_level, sentencepiece
from tests.tiny import make_tokenizer

FAMILY = RefusalFamily("mine", ("Sorry, no.", "I can not help with that.", "That is unsafe."))


def with_words(tokenizer: Any, *words: str) -> Any:
    """The tokenizer with whole words, as a large vocabulary has them."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer


def named(lexicon: Lexicon, ids: tuple[int, ...]) -> set[str]:
    return {lexicon.names[i] for i in ids}


def test_ids_are_found_by_what_they_read() -> None:
    tokenizer = with_words(make_tokenizer(), "sorry", " sorry", "Sorry", " SORRY", " sorrys", "sorrow", "\nI")
    lexicon = compile_lexicon(tokenizer, FAMILY)
    assert named(lexicon, lexicon.paper) == {"sorry", " sorry", "Sorry", " SORRY"}
    assert named(lexicon, lexicon.released) == {"sorry", " sorry", "Sorry", " SORRY", "I", " I", "\nI"}
    assert list(lexicon.paper) == sorted(lexicon.paper)
    assert set(lexicon.paper) <= set(lexicon.released)
    assert "i" not in named(lexicon, lexicon.released)
    for i in lexicon.paper:
        assert tokenizer.decode([i]).strip().lower() == "sorry"


def test_a_split_word_has_no_id() -> None:
    tokenizer = make_tokenizer()
    assert len(tokenizer("sorry", add_special_tokens=False)["input_ids"]) > 1
    lexicon = compile_lexicon(tokenizer, FAMILY)
    assert lexicon.paper == ()
    assert named(lexicon, lexicon.released) == {"I", " I"}


@pytest.mark.parametrize("make", [lambda: byte_level("llama_3"), lambda: sentencepiece("mistral")])
def test_openings_are_the_first_tokens_of_the_phrases(make: Any) -> None:
    tokenizer = make()
    lexicon = compile_lexicon(tokenizer, FAMILY)
    first = {tokenizer(p, add_special_tokens=False)["input_ids"][0] for p in FAMILY.phrases}
    assert set(lexicon.openings) == first
    assert not first & set(tokenizer.all_special_ids)
    for phrase in FAMILY.phrases:
        assert any(phrase.startswith(lexicon.names[i].strip()) for i in lexicon.openings)


def test_every_id_has_a_name() -> None:
    tokenizer = with_words(make_tokenizer(), "sorry")
    for name in family_names():
        lexicon = compile_lexicon(tokenizer, load_family(name))
        assert lexicon.family == name
        assert lexicon.openings
        assert set(lexicon.names) == {*lexicon.paper, *lexicon.released, *lexicon.openings}
        assert list(lexicon.names) == sorted(lexicon.names)


def test_whole_words_are_found_with_and_without_a_space_and_split_ones_are_named() -> None:
    tokenizer = with_words(make_tokenizer(), "sorry", " sorry", "Sorry", "\nsorry", "illegal")
    found = whole_words(tokenizer, ("sorry", "illegal", "conspiracy"))
    assert set(found.names.values()) == {"sorry", " sorry", "illegal"} and found.split == ("conspiracy",)
    assert found.ids == tuple(sorted(found.names))


def test_the_first_piece_stands_in_only_when_it_is_asked_for() -> None:
    tokenizer = with_words(make_tokenizer(), "illegal")
    words = ("illegal", "conspiracy", "contrary")
    assert set(whole_words(tokenizer, words).names.values()) == {"illegal"}
    pieces = whole_words(tokenizer, words, first_subtoken=True)
    firsts = {tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words}
    assert set(pieces.ids) == firsts and pieces.split == ("conspiracy", "contrary")
    assert any(len(name) < 4 for name in pieces.names.values())


@pytest.mark.parametrize("tokenizer", [byte_level("chatml"), sentencepiece("llama_2"), sentencepiece("gemma")])
def test_whole_words_read_alike_in_every_kind_of_vocabulary(tokenizer: Any) -> None:
    found = whole_words(tokenizer, ("sorry", "model", "zzyzx"))
    assert "zzyzx" in found.split and found.ids
    assert {name.strip() for name in found.names.values()} <= {"sorry", "model"}
