"""Surface baselines: classifiers that see the form of a prompt and never a model.

A probe says something about a model only by what it adds to the best of these.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from interp.errors import UsageError
from interp.prompts.form import SHARED, length_features, origin, punctuation_features, said, template_tags
from interp.prompts.prompt import Prompt

SURFACES = ("length", "punctuation", "words", "template", "image", "dataset")
WORDS_STRENGTH = 10.0
"""Inverse regularisation of the words baseline: the best or nearly so of 1, 10 and 100 on three public-style sets."""

_Scorer = Callable[[Int[ndarray, " train"], Int[ndarray, " test"]], Float[ndarray, " test"]]


def surface_scores(
    name: str,
    prompts: Sequence[Prompt],
    target: Bool[ndarray, " prompt"],
    splits: Sequence[tuple[Int[ndarray, " _train"], Int[ndarray, " _test"]]],
) -> Float[ndarray, " prompt"]:
    """Scores each test prompt by a logistic regression on one aspect of the form of the training prompts.

    Args:
        name: ``length`` (words, characters, sentences), ``punctuation`` (marks, capitals, digits, how a prompt starts
            and ends), ``words`` (TF-IDF of word 1-2-grams and character 2-5-grams), ``template`` (system message,
            turns, shared openings and endings), ``image`` (is there one) or ``dataset`` (the origin that the id tells).
        prompts: what is scored; labels are read from ``target`` alone.
        target: which prompts are of the class to be found.
        splits: (training rows, test rows) of each fit; the last one counts for a row in several test sets.

    Returns:
        Log-odds of the target class, comparable within a test set only; NaN for rows in no test set; 0 for the test
        rows of a split whose training rows are all of one class.

    Raises:
        UsageError: for a name that is none of `SURFACES`.
    """
    if name not in SURFACES:
        raise UsageError(f"unknown surface {name!r}; choose one of {', '.join(SURFACES)}.")
    scores = np.full(len(prompts), np.nan)
    scorer: _Scorer | None = None
    for train, test in splits:
        if target[train].all() or not target[train].any():
            scores[test] = 0.0
        elif len(test):
            scorer = scorer or _scorer(name, prompts, target)
            scores[test] = scorer(train, test)
    return scores


def _scorer(name: str, prompts: Sequence[Prompt], target: Bool[ndarray, " prompt"]) -> _Scorer:
    if name == "words":
        return _words(prompts, target)
    if name == "length":
        return _numbers(length_features(prompts), target, squares=True)
    if name == "punctuation":
        return _numbers(punctuation_features(prompts), target, squares=False)
    if name == "image":
        return _numbers(np.array([[float(p.image is not None)] for p in prompts]), target, squares=False)
    return _tags([template_tags(p) if name == "template" else [origin(p)] for p in prompts], target)


def _numbers(features: Float[ndarray, "prompt feature"], target: Bool[ndarray, " prompt"], *, squares: bool) -> _Scorer:
    def score(train: Int[ndarray, " train"], test: Int[ndarray, " test"]) -> Float[ndarray, " test"]:
        middle, spread = features[train].mean(0), features[train].std(0)
        scaled = (features - middle) / np.where(spread > 0, spread, 1.0)
        # What training prompts never differ in carries no weight: it must not decide about test prompts.
        scaled = scaled[:, spread > 0]
        return _logistic(np.hstack([scaled, scaled**2]) if squares else scaled, target, train, test)

    return score


def _tags(tags: Sequence[Sequence[Hashable]], target: Bool[ndarray, " prompt"]) -> _Scorer:
    table = _counts(tags, lambda found: found)
    table.data[:] = 1.0

    def score(train: Int[ndarray, " train"], test: Int[ndarray, " test"]) -> Float[ndarray, " test"]:
        shared = np.asarray(table[train].sum(0)).ravel() >= SHARED
        return _logistic(table[:, shared], target, train, test)

    return score


def _words(prompts: Sequence[Prompt], target: Bool[ndarray, " prompt"]) -> _Scorer:
    from scipy import sparse

    texts = [said(p) for p in prompts]
    # Counted once for all splits; what training never saw is given no weight below, so nothing leaks.
    words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    counted = [_counts(texts, "word", **words), _counts(texts, "char_wb", ngram_range=(2, 5))]
    for table in counted:
        table.data = 1 + np.log(table.data)

    def score(train: Int[ndarray, " train"], test: Int[ndarray, " test"]) -> Float[ndarray, " test"]:
        rows = np.concatenate([train, test])
        features = sparse.hstack([_tf_idf(table[rows], len(train)) for table in counted]).tocsr()
        places = np.arange(len(rows))
        return _logistic(features, target[rows], places[: len(train)], places[len(train) :], WORDS_STRENGTH)

    return score


def _counts(texts: Sequence[Any], analyzer: Any, **settings: Any) -> Any:
    """Counts of tokens, a sparse (text, token) float64 matrix; without a column where no text holds a token."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=analyzer, dtype=np.float64, **settings)
    try:
        return counter.fit_transform(texts).tocsr()
    except ValueError:  # the library's word for an empty vocabulary
        return sparse.csr_matrix((len(texts), 0))


def _tf_idf(counts: Any, train: int) -> Any:
    """Rows of unit length, weighted by how rare a token is among the first ``train`` rows; unseen tokens weigh 0."""
    from scipy import sparse

    found = counts[:train].getnnz(axis=0)
    rarity = np.where(found > 0, np.log((1 + train) / (1 + found)) + 1, 0.0)
    weighted = counts @ sparse.diags(rarity)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return sparse.diags(1 / np.where(norms > 0, norms, 1.0)) @ weighted


def _logistic(
    features: Any,
    target: Bool[ndarray, " prompt"],
    train: Int[ndarray, " train"],
    test: Int[ndarray, " test"],
    strength: float = 1.0,
) -> Float[ndarray, " test"]:
    from sklearn.linear_model import LogisticRegression

    if not features.shape[1]:
        return np.zeros(len(test))
    # Its coordinate descent shuffles: seeded, so that the same prompts give the same scores.
    model = LogisticRegression(C=strength, solver="liblinear", max_iter=1000, random_state=0)
    model.fit(features[train], target[train])
    return np.asarray(model.decision_function(features[test]), dtype=np.float64)
