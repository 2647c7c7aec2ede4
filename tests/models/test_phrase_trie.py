from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.models.phrase_trie import PhraseTrie, compile_trie, opening_tokens, prefix_free, spellings
from interp.prompts.families import RefusalFamily, family_names, load_decoys, load_family, opening, opening_text
from tests.models.vocabularies import byte_level, sentencepiece
from tests.tiny import make_tokenizer

TOKENIZERS = {
    "tiny": make_tokenizer,
    "llama_3": lambda: byte_level("llama_3"),
    "mistral": lambda: sentencepiece("mistral"),
    "gemma": lambda: sentencepiece("gemma"),
}
FAMILY = RefusalFamily("mine", ("I'm sorry, but no.", "I'm sorry, but I won't.", "My apologies, but I can't.", "No."))
SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), max_size=12).map(tuple)


def ids_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def begins(answer: tuple[int, ...], with_any_of: tuple[tuple[int, ...], ...]) -> bool:
    return any(answer[: len(sequence)] == sequence for sequence in with_any_of)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("I'm sorry, but I can't help.", "I'm sorry, but"),
        ("Sorry, but no. I can't.", "Sorry, but no"),
        ("  I\u2019m   so sorry, but no ", "I\u2019m   so sorry"),
        ("¿Puede usted preguntar otra cosa?", "¿Puede usted preguntar"),
        ("No comment.", "No comment."),
        ("Well \u2013 that depends.", "Well \u2013 that"),
        ("对不起，我不能。", "对不起，我"),
        ("不行。", "不行。"),
        ("...", ""),
        ("", ""),
    ],
)
def test_an_opening_is_the_start_of_its_phrase(phrase: str, text: str) -> None:
    assert opening_text(phrase) == text
    assert phrase.strip().startswith(text)
    assert opening(text) == opening(phrase)


@pytest.mark.parametrize("name", family_names())
def test_every_spelling_of_a_bundled_phrase_opens_as_it_does(name: str) -> None:
    family = load_family(name)
    for phrase in family.phrases:
        assert opening(opening_text(phrase)) == opening(phrase)
        for text in spellings(phrase):
            assert family.opens(text) or not opening(phrase)
            assert opening(opening_text(text)) == opening(phrase)


def test_spellings() -> None:
    assert spellings("I'm so sorry.") == ("I'm so sorry.", "I\u2019m so sorry.", "i'm so sorry.", "i\u2019m so sorry.")
    assert spellings("¿Quién sabe?") == ("¿Quién sabe?", "¿quién sabe?")
    assert spellings("对不起") == ("对不起",)
    assert spellings("ß is no letter to begin with") == ("ß is no letter to begin with",)


@given(SEQUENCES, st.lists(st.integers(0, 3), max_size=7).map(tuple))
def test_dropping_what_extends_another_changes_no_answer(sequences: Any, answer: tuple[int, ...]) -> None:
    trie = PhraseTrie("x", sequences)
    kept = trie.sequences
    assert not [(a, b) for a in kept for b in kept if a != b and b[: len(a)] == a]
    assert set(kept) <= set(sequences) and list(kept) == sorted(set(kept))
    assert trie.matches(answer) == begins(answer, sequences)
    assert prefix_free(kept) == kept


@given(SEQUENCES)
def test_the_probabilities_of_a_trie_sum_to_one_at_most(sequences: Any) -> None:
    """With four tokens, all equally likely."""
    assert sum(4.0 ** -len(s) for s in PhraseTrie("x", sequences).sequences) <= 1


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("family", family_names())
def test_every_bundled_phrase_begins_with_its_own_opening(name: str, family: str) -> None:
    tokenizer, known = TOKENIZERS[name](), load_family(family)
    trie = compile_trie(tokenizer, known)
    assert trie.family == family
    for phrase in known.phrases:
        for text in (phrase, phrase.replace("'", "\u2019"), phrase + " Goodbye!"):
            assert trie.matches(ids_of(tokenizer, text)) == bool(opening(phrase))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_sequence_reads_as_an_opening(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    for sequence in compile_trie(tokenizer, FAMILY).sequences:
        assert opening(tokenizer.decode(sequence)) in {("i'm", "sorry", "but"), ("my", "apologies", "but"), ("no",)}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_other_answers_do_not_match(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    trie, apology = compile_trie(tokenizer, FAMILY), compile_trie(tokenizer, load_family("apology"))
    for text in ("Sure! Here is how", "I'm sorry", "I'm happy, but", "No", "Nothing.", "I", ""):
        assert not trie.matches(ids_of(tokenizer, text))
    assert not any(apology.matches(ids_of(tokenizer, decoy)) for decoy in load_decoys("sorry"))


def test_phrases_with_one_opening_are_one_sequence_per_spelling() -> None:
    tokenizer = make_tokenizer()
    one = compile_trie(tokenizer, RefusalFamily("a", FAMILY.phrases[:1]))
    two = compile_trie(tokenizer, RefusalFamily("a", FAMILY.phrases[:2]))
    assert one == two
    assert len(one.sequences) == 4


def test_an_opening_may_end_inside_a_token() -> None:
    """The opening of a Chinese phrase is four characters, whatever the vocabulary joins."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("无法", normalized=False)])
    phrase = "抱歉，我无法回答。"
    assert opening_text(phrase) == phrase[:5]
    assert tokenizer.decode(opening_tokens(tokenizer, phrase)) == phrase[:6]
    trie = compile_trie(tokenizer, RefusalFamily("zh", (phrase,)))
    assert trie.matches(ids_of(tokenizer, phrase))
    assert trie.matches(ids_of(tokenizer, phrase[:5] + "能为力。"))
    assert not trie.matches(ids_of(tokenizer, phrase[:4]))


def test_no_opening_ends_inside_a_character() -> None:
    tokenizer = make_tokenizer()
    phrase = "对不起，我不能。"
    assert tokenizer.decode(opening_tokens(tokenizer, phrase)) == phrase[:5]


def test_what_a_vocabulary_can_not_write_is_left_out() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "sorry": 1, "but": 2, "no": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    family = RefusalFamily("w", ("sorry but no", "I can not", "sorry you can"))
    assert compile_trie(tokenizer, family).sequences == ((1, 2, 3),)
    nothing = compile_trie(tokenizer, RefusalFamily("w", ("I can not",)))
    assert nothing.sequences == () and not nothing.matches([0, 0, 0])


def test_a_family_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "rude.txt"
    path.write_text("Go away, you.\n\nNot today, my friend.\n", "utf-8")
    tokenizer = make_tokenizer()
    trie = compile_trie(tokenizer, load_family(str(path)))
    assert trie.family == "rude"
    assert trie.matches(ids_of(tokenizer, "Not today, my dear.")) and not trie.matches(ids_of(tokenizer, "Not now."))


def test_an_empty_file_and_a_family_without_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n \n", "utf-8")
    with pytest.raises(UsageError, match=r"empty\.txt: holds no phrase"):
        load_family(str(path))
    with pytest.raises(UsageError, match="family dots: no phrase holds a word"):
        compile_trie(make_tokenizer(), RefusalFamily("dots", ("...", "?!")))
    with pytest.raises(UsageError, match="empty token sequence"):
        PhraseTrie("x", ((1,), ()))
