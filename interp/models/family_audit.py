"""What a lens that looks at one token only can see of refusal families, for one tokenizer.

Such a lens (the logit lens at the end of the prompt, say) watches the first token of each phrase. A phrase is

- split, when its first word is more than one token (in Chinese its first character): the token stands for many words;
- invisible, when its first token shows no letter or digit: a bare space marker, a piece of a character, punctuation;
- colliding, when its first token also begins a phrase of another family, a decoy, or one of the bundled ordinary
  answers in any language, as "I" does;
- blind, when it is invisible or colliding: whoever sees the token does not know that this family was meant.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from interp.models.phrase_trie import opening_tokens
from interp.prompts.families import (
    RefusalFamily,
    answer_languages,
    decoy_names,
    family_names,
    load_answers,
    load_decoys,
    load_family,
    opening,
)

COLUMNS = (
    "family",
    "phrase",
    "tokens",
    "n_tokens",
    "first",
    "first_id",
    "split",
    "invisible",
    "collides",
    "blind",
    "collides_with",
)


def audit_families(tokenizer: Any, families: Sequence[RefusalFamily]) -> pd.DataFrame:
    """What a first-token lens can see of every phrase; collisions are those with all bundled families and these.

    Args:
        tokenizer: a fast tokenizer.
        families: what to look at. One with the name of a bundled family takes its place.

    Returns:
        One row per phrase, in their order: ``family``; ``phrase``; ``tokens``, those of its opening as they read,
        parted by ``|`` (of all of it when it holds no word); ``n_tokens``; ``first`` and ``first_id``, the first of
        them; the flags ``split``, ``invisible``, ``collides`` and ``blind`` of the head of this module; and
        ``collides_with``, the names of families, ``decoys NAME`` and ``answers LANGUAGE``, parted by commas.
    """
    others = {name: load_family(name) for name in family_names()} | {family.name: family for family in families}
    begun = _beginnings(tokenizer, others.values())
    rows = [_row(tokenizer, family.name, phrase, begun) for family in families for phrase in family.phrases]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarise(audit: pd.DataFrame) -> pd.DataFrame:
    """One row per family of an audit, in its order.

    Args:
        audit: from `audit_families`.

    Returns:
        ``family``; ``phrases``; ``first_tokens``, how many different ones begin them; ``split``, ``colliding`` and
        ``invisible``, shares of the phrases from 0 to 1; ``blind``, a number of phrases.
    """
    grouped = audit.groupby("family", sort=False)
    return pd.DataFrame(
        {
            "phrases": grouped.size(),
            "first_tokens": grouped["first_id"].nunique(),
            "split": grouped["split"].mean(),
            "colliding": grouped["collides"].mean(),
            "invisible": grouped["invisible"].mean(),
            "blind": grouped["blind"].sum(),
        }
    ).reset_index()


def headline(audit: pd.DataFrame) -> str:
    """What the audit comes to, in a sentence or two; the second names the families that it can not tell at all.

    Args:
        audit: from `audit_families`, of at least one phrase.
    """
    by_family = summarise(audit)
    blind, phrases = int(by_family["blind"].sum()), int(by_family["phrases"].sum())
    names = list(by_family["family"])
    of = names[0] if len(names) == 1 else f"{len(names)} families"
    said = f"A first-token lens is blind to {blind} of {phrases} phrases of {of}."
    dark = list(by_family["family"][by_family["blind"] == by_family["phrases"]])
    if len(names) == 1 or not dark:
        return said
    return f"{said} It can tell no phrase of {'any family' if len(dark) == len(names) else ', '.join(dark)}."


def token_reads(tokenizer: Any, token: int) -> str:
    """A vocabulary entry as it reads: its text, or its name in the vocabulary where that is blank, such as ``▁``."""
    text = str(tokenizer.decode([token]))
    return text if text.strip() else str(tokenizer.convert_ids_to_tokens(token))


def is_invisible(tokenizer: Any, token: int) -> bool:
    """Whether a vocabulary entry shows no letter and no digit; pieces of a character show none."""
    return not any(c.isalnum() for c in str(tokenizer.decode([token])))


def _row(tokenizer: Any, family: str, phrase: str, begun: Mapping[int, Sequence[str]]) -> tuple[Any, ...]:
    tokens = opening_tokens(tokenizer, phrase) or _ids(tokenizer, phrase)
    first = tokens[0]
    collides_with = [name for name in begun[first] if name != family]
    invisible, collides = is_invisible(tokenizer, first), bool(collides_with)
    return (
        family,
        phrase,
        "|".join(token_reads(tokenizer, token) for token in tokens),
        len(tokens),
        token_reads(tokenizer, first),
        first,
        _is_split(tokenizer, phrase),
        invisible,
        collides,
        invisible or collides,
        ", ".join(collides_with),
    )


def _beginnings(tokenizer: Any, families: Iterable[RefusalFamily]) -> dict[int, list[str]]:
    """What begins with each token: families, decoys and ordinary answers, in this order, each named once."""
    named = [(family.name, phrase) for family in families for phrase in family.phrases]
    named += [(f"decoys {name}", text) for name in decoy_names() for text in load_decoys(name)]
    named += [(f"answers {language}", text) for language in answer_languages() for text in load_answers(language)]
    begun: dict[int, list[str]] = {}
    for name, text in named:
        names = begun.setdefault(_ids(tokenizer, text)[0], [])
        if name not in names:
            names.append(name)
    return begun


def _is_split(tokenizer: Any, phrase: str) -> bool:
    """Whether more than one token writes the first word; a space marker of its own before it writes none of it."""
    words = opening(phrase)
    if not words:
        return False
    phrase = phrase.strip()
    start = phrase.lower().replace("\u2019", "'").find(words[0])
    end = start + len(words[0])
    encoded = tokenizer(phrase, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    pieces = [i for i, (a, b) in places if a < end and start < b and tokenizer.decode([i]).strip()]
    return len(pieces) > 1


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text.strip(), add_special_tokens=False)["input_ids"])
