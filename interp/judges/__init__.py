"""Judges of responses: they know text alone, neither a model nor a tensor.

Each is wrong in its own way, so two or more are asked and their agreement is reported.
"""

from interp.judges.agreement import agreement_table, cohen_kappa, kappa_matrix, recall_by_family, refusal_rates
from interp.judges.behaviour import Behaviour, as_refused, behaviour, tally
from interp.judges.classes import readable
from interp.judges.family import family_refuses, judged_families
from interp.judges.keyword import KeywordList, keyword_list, keyword_lists, keyword_refuses
from interp.judges.verdicts import judge, judges

__all__ = [
    "Behaviour",
    "KeywordList",
    "agreement_table",
    "as_refused",
    "behaviour",
    "cohen_kappa",
    "family_refuses",
    "judge",
    "judged_families",
    "judges",
    "kappa_matrix",
    "keyword_list",
    "keyword_lists",
    "keyword_refuses",
    "readable",
    "recall_by_family",
    "refusal_rates",
    "tally",
]
