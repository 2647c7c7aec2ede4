from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.models.family_audit import COLUMNS, audit_families, headline, is_invisible, summarise, token_reads
from interp.models.load import load_tokenizer
from interp.models.phrase_trie import opening_tokens
from interp.models.source import ModelSource
from interp.prompts.families import RefusalFamily, family_names, load_decoys, load_family
from tests.models.vocabularies import byte_level, sentencepiece
from tests.tiny import make_tokenizer

SPACE = "▁"


def mistral_like(*words: str) -> Any:
    """A sentencepiece-like vocabulary of whole words and single Chinese characters, which spells the rest in bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges, known = [], dict.fromkeys(f"<0x{b:02X}>" for b in range(256))
    for word in (SPACE, *"对不起抱歉我能无法", *words):
        known |= dict.fromkeys((*word, word))
        # Each word is joined from the left, one character after the other.
        for end in range(2, len(word) + 1):
            known[word[:end]] = None
            merges.append((word[: end - 1], word[end - 1]))
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", *known])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges)), unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def row_of(audit: pd.DataFrame, phrase: str) -> Any:
    return next(audit[audit["phrase"] == phrase].itertuples(index=False))


def test_a_chinese_refusal_begins_with_a_bare_space_marker() -> None:
    """So it is in Mistral's vocabulary: the first token of 对不起 is ▁, which shows nothing."""
    family = RefusalFamily("mine.zh", ("对不起，我不能。", "抱歉，我无法。"))
    tokenizer = mistral_like(SPACE + "I", SPACE + "Sorry")
    audit = audit_families(tokenizer, [family])
    row = row_of(audit, "对不起，我不能。")
    assert row.tokens.split("|")[:4] == [SPACE, "对", "不", "起"]
    assert row.first == SPACE
    assert row.invisible and row.blind and row.collides and not row.split
    assert "apology.zh" in row.collides_with.split(", ")
    assert tuple(audit["first"]) == (SPACE, SPACE)
    assert headline(audit) == "A first-token lens is blind to 2 of 2 phrases of mine.zh."
    assert summarise(audit).iloc[0].to_dict() == {
        "family": "mine.zh",
        "phrases": 2,
        "first_tokens": 1,
        "split": 0.0,
        "colliding": 1.0,
        "invisible": 1.0,
        "blind": 2,
    }


@pytest.mark.parametrize("make", [lambda: sentencepiece("mistral"), lambda: sentencepiece("llama_2")])
def test_so_it_is_in_trained_vocabularies_of_this_kind(make: Any) -> None:
    audit = audit_families(make(), [load_family("apology.zh")])
    assert set(audit["first"]) == {SPACE}
    assert audit["invisible"].all() and audit["blind"].all()


def test_whole_words_are_seen_and_split_ones_are_not() -> None:
    tokenizer = mistral_like(SPACE + "Vex", SPACE + "I")
    family = RefusalFamily("mine", ("Vexing is not for me.", "Vex me no more.", "I won't, no.", "Grr, no."))
    audit = audit_families(tokenizer, [family])
    assert list(audit.columns) == list(COLUMNS)
    flags = {row.phrase: (row.split, row.invisible, row.collides, row.blind) for row in audit.itertuples()}
    assert flags["Vex me no more."] == (False, False, False, False)
    assert flags["Vexing is not for me."] == (True, False, False, False)
    assert flags["I won't, no."] == (False, False, True, True)
    # Nothing of "Grr" is in the vocabulary, so that it begins with the marker, as all Chinese does.
    assert flags["Grr, no."] == (True, True, True, True)
    assert {"inability", "answers en"} <= set(row_of(audit, "I won't, no.").collides_with.split(", "))
    assert headline(audit) == "A first-token lens is blind to 2 of 4 phrases of mine."


def test_a_family_does_not_collide_with_itself() -> None:
    tokenizer = mistral_like(SPACE + "Vex", SPACE + "Zed")
    twice, other = RefusalFamily("a", ("Vex me no more.", "Vex not.")), RefusalFamily("b", ("Zed is dead.",))
    alone = audit_families(tokenizer, [twice, other])
    assert not alone["collides"].any()
    assert headline(alone) == "A first-token lens is blind to 0 of 3 phrases of 2 families."
    both = audit_families(tokenizer, [twice, RefusalFamily("b", ("Zed is dead.", "Vex it."))])
    assert list(both["collides_with"]) == ["b", "b", "", "a"]
    assert headline(both).endswith("3 of 4 phrases of 2 families. It can tell no phrase of a.")


def test_a_family_takes_the_place_of_a_bundled_one() -> None:
    tokenizer = mistral_like(SPACE + "Vex")
    mine = RefusalFamily("apology", ("Vex me no more.",))
    assert audit_families(tokenizer, [mine])["collides_with"].tolist() == [""]


def test_decoys_and_ordinary_answers_collide() -> None:
    tokenizer = mistral_like(SPACE + "Sorry", SPACE + "Here")
    audit = audit_families(tokenizer, [RefusalFamily("mine", ("Sorry, no.", "Here I stop.", "Hereafter, no."))])
    assert load_decoys("sorry")
    for name in ("apology", "decoys sorry"):
        assert name in row_of(audit, "Sorry, no.").collides_with.split(", ")
    assert "answers en" in row_of(audit, "Here I stop.").collides_with.split(", ")
    assert row_of(audit, "Hereafter, no.").split


def test_pieces_of_characters_are_invisible() -> None:
    tokenizer = make_tokenizer()
    audit = audit_families(tokenizer, [RefusalFamily("mine", ("对不起，我不能。", "¿Qué?", "Über uns schweigt man."))])
    assert audit["invisible"].all()
    # The letters that take several bytes are what is split; the question mark stands before the word.
    assert list(audit["split"]) == [True, True, True]


@pytest.mark.parametrize(
    ("text", "invisible"), [("a", False), ("7", False), ("?", True), (" ", True), ("\n", True), ("...", True)]
)
def test_what_can_be_recognised(text: str, invisible: bool) -> None:
    tokenizer = make_tokenizer()
    first = tokenizer(text, add_special_tokens=False)["input_ids"][0]
    assert is_invisible(tokenizer, first) == invisible
    assert token_reads(tokenizer, first).strip()


def test_a_phrase_without_a_word_shows_nothing() -> None:
    audit = audit_families(make_tokenizer(), [RefusalFamily("mine", ("...", "Hm."))])
    row = row_of(audit, "...")
    assert (row.split, row.invisible, row.blind) == (False, True, True)
    assert row.n_tokens >= 1


@pytest.mark.parametrize("make", [make_tokenizer, lambda: byte_level("llama_3"), lambda: sentencepiece("gemma")])
def test_every_bundled_phrase_is_audited(make: Any) -> None:
    tokenizer = make()
    families = [load_family(name) for name in family_names()]
    audit, summary = audit_families(tokenizer, families), None
    assert list(audit["phrase"]) == [phrase for family in families for phrase in family.phrases]
    for row in audit.itertuples():
        assert row.n_tokens == len(opening_tokens(tokenizer, row.phrase)) or row.phrase == "..."
        assert row.blind == (row.invisible or row.collides)
        assert row.collides == bool(row.collides_with)
        assert row.family not in row.collides_with.split(", ")
    summary = summarise(audit)
    assert list(summary["family"]) == family_names()
    assert summary["phrases"].sum() == len(audit) and summary["blind"].sum() == audit["blind"].sum()
    assert summary[["split", "colliding", "invisible"]].to_numpy().max() <= 1
    assert f"{audit['blind'].sum()} of {len(audit)} phrases of {len(families)} families" in headline(audit)


def test_a_tokenizer_loads_without_weights(tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        if not file.name.endswith(".safetensors"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = load_tokenizer(ModelSource("local", tmp_path))
    assert len(audit_families(tokenizer, [load_family("apology")])) == len(load_family("apology").phrases)
