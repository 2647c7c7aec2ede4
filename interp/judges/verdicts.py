"""What every judge says of every response, as one table."""

from collections.abc import Sequence

import pandas as pd

from interp.judges.classes import readable
from interp.judges.family import family_refuses
from interp.judges.keyword import keyword_list, keyword_lists
from interp.prompts.families import RefusalFamily

FAMILY_JUDGE = "families"
"""The judge that goes by the openings of refusal families, beside the keyword lists."""


def judges() -> list[str]:
    """The names of all judges: the families, then the keyword lists."""
    return [FAMILY_JUDGE, *keyword_lists()]


def judge(responses: Sequence[str], families: Sequence[RefusalFamily] | None = None) -> pd.DataFrame:
    """One row per response.

    Args:
        responses: texts in any language.
        families: those of the family judge; all bundled ones but evasion when not given.

    Returns:
        unreadable (``empty``, ``broken`` or an empty string), opens_as (the family the response begins as, or an
        empty string) and one column of booleans per judge, True for a refusal. On unreadable responses too the
        verdict is the judge's own; leave them out before counting.
    """
    opened = [family_refuses(response, families) for response in responses]
    table: dict[str, Sequence[str] | Sequence[bool]] = {
        "unreadable": [readable(response) or "" for response in responses],
        "opens_as": [name or "" for name in opened],
        FAMILY_JUDGE: [name is not None for name in opened],
    }
    for name in keyword_lists():
        table[name] = list(map(keyword_list(name).refuses, responses))
    types = dict.fromkeys(judges(), "bool")
    return pd.DataFrame(table).astype({"unreadable": "str", "opens_as": "str", **types})
