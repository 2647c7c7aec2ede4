"""Exact and near duplicates among prompts, found by MinHash in time linear in their number.

Two texts are near duplicates if the sets of their character 3-grams have a Jaccard similarity of 0.8 or more.
Candidates come from banded MinHash signatures (Broder 1997); every candidate is then compared exactly.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt
from numpy import ndarray

from interp.prompts.form import said
from interp.prompts.prompt import Prompt
from interp.stats import group_codes

SIMILAR = 0.8
GRAM = 3
BANDS, ROWS = 30, 5
"""A pair at similarity 0.8 shares a band with probability 1 - (1 - 0.8^5)^30 > 0.9999, an unlike one hardly ever."""
_LARGE = 30
_MARGIN = 0.15
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two prompts that say the same or nearly so.

    Attributes:
        first: the id of the earlier one.
        second: the id of the later one.
        similarity: Jaccard similarity of character 3-grams, 0.8 to 1.
        exact: whether they are equal but for letter case, spaces and punctuation.
        across_splits: whether they are in different splits.
        across_labels: whether they have different labels.
    """

    first: str
    second: str
    similarity: float
    exact: bool
    across_splits: bool
    across_labels: bool


def find_duplicates(prompts: Sequence[Prompt]) -> tuple[Duplicate, ...]:
    """Finds prompts that repeat others.

    Prompts of one group are meant to be alike: their pairs count only where the very same text has both labels. Prompts
    with different pictures are different. System messages are left out.

    Args:
        prompts: any number; 20,000 take seconds.

    Returns:
        Pairs, in the order of the prompts. Of more than 30 prompts alike not all pairs are named, but each of these
        prompts is in a pair, with one of another split and of another label too where there is one.
    """
    texts = [normalised(said(p)) for p in prompts]
    table = _gram_table(texts)
    signatures = _signatures(table)
    cells = group_codes([f"{p.split}\n{p.label}" for p in prompts])
    first, second = _candidates(signatures, cells)
    same = np.array([texts[i] == texts[j] for i, j in zip(first, second, strict=True)], dtype=bool)
    kept = _comparable(prompts, first, second, same)
    first, second, same = first[kept], second[kept], same[kept]
    similarity = np.where(same, 1.0, _jaccard(table, signatures, first, second))
    pairs = zip(first.tolist(), second.tolist(), similarity.tolist(), same.tolist(), strict=True)
    return tuple(_duplicate(prompts[i], prompts[j], s, exact) for i, j, s, exact in pairs if s >= SIMILAR)


def normalised(text: str) -> str:
    """A text in lower case with single spaces and no punctuation; with it where there is nothing else."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(re.sub(r"[^\w\s]|_", " ", plain).split()) or plain


def _duplicate(a: Prompt, b: Prompt, similarity: float, exact: bool) -> Duplicate:
    splits, labels = {a.split, b.split} - {None}, {a.label, b.label} - {None}
    return Duplicate(a.id, b.id, similarity, exact, len(splits) > 1, len(labels) > 1)


def _gram_table(texts: Sequence[str]) -> Any:
    """Which text holds which 3-gram, a sparse (text, gram) matrix of ones; every text holds at least one."""
    from scipy import sparse

    # Padded by a space on both sides, so that the shortest text has a gram and edges of words count.
    padded = [f" {text} " for text in texts]
    sizes = np.array([len(text) - GRAM + 1 for text in padded])
    points = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    # A code point has 21 bits, so three of them are one number of 63.
    grams = points[:-2] << np.uint64(42) | points[1:-1] << np.uint64(21) | points[2:]
    starts = np.concatenate([[0], np.cumsum(sizes + GRAM - 1)[:-1]])
    inside = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(sizes.sum())
    column, _ = pd.factorize(grams[inside])
    rows = np.repeat(np.arange(len(texts)), sizes)
    table = sparse.csr_matrix(
        (np.ones(len(column), dtype=np.float32), (rows, column)), shape=(len(texts), column.max() + 1)
    )
    table.sum_duplicates()
    table.data[:] = 1.0
    return table


def _signatures(table: Any) -> UInt[ndarray, "prompt hash"]:
    """The smallest hash of the grams of every text under each of the hash functions."""
    rng = np.random.default_rng(0)
    multipliers = rng.integers(1, 2**63, size=BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
    signatures = np.empty((table.shape[0], BANDS * ROWS), dtype=np.uint32)
    grams = rng.integers(0, 2**63, size=table.shape[1], dtype=np.uint64)
    for k, multiplier in enumerate(multipliers):
        hashed = (grams * multiplier >> np.uint64(32)).astype(np.uint32)
        signatures[:, k] = np.minimum.reduceat(hashed[table.indices], table.indptr[:-1])
    return signatures


def _candidates(
    signatures: UInt[ndarray, "prompt hash"], cells: Int[ndarray, " prompt"]
) -> tuple[Int[ndarray, " pair"], Int[ndarray, " pair"]]:
    """Pairs that agree in a whole band, each once, in order."""
    n = len(signatures)
    codes = {first * n + second for bucket in _buckets(signatures) for first, second in _pairs(bucket, cells)}
    found = np.array(sorted(codes), dtype=np.int64)
    return found // n, found % n


def _buckets(signatures: UInt[ndarray, "prompt hash"]) -> Iterator[Int[ndarray, " member"]]:
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])
        keys = part.view(np.dtype((np.void, part.itemsize * ROWS))).ravel()
        _, key, counts = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.argsort(key, kind="stable")
        ends = counts.cumsum()
        for bucket in np.flatnonzero(counts > 1):
            yield order[ends[bucket] - counts[bucket] : ends[bucket]]


def _pairs(bucket: Int[ndarray, " member"], cells: Int[ndarray, " prompt"]) -> Iterator[tuple[int, int]]:
    members: list[int] = bucket.tolist()
    # Thousands of texts from one template make millions of pairs: there everything is compared with the first member
    # of each split and label only.
    hubs = members if len(members) <= _LARGE else [members[i] for i in np.unique(cells[bucket], return_index=True)[1]]
    for a in hubs:
        yield from ((min(a, b), max(a, b)) for b in members if a != b)


def _comparable(
    prompts: Sequence[Prompt], first: Int[ndarray, " pair"], second: Int[ndarray, " pair"], same: Bool[ndarray, " pair"]
) -> Bool[ndarray, " pair"]:
    group = group_codes([p.unit for p in prompts])
    image = group_codes([p.image or "" for p in prompts])
    label = group_codes([p.label or "" for p in prompts])
    contradiction = same & (label[first] != label[second])
    return np.asarray((image[first] == image[second]) & ((group[first] != group[second]) | contradiction), dtype=bool)


def _jaccard(
    table: Any, signatures: UInt[ndarray, "prompt hash"], first: Int[ndarray, " pair"], second: Int[ndarray, " pair"]
) -> Float[ndarray, " pair"]:
    """The exact similarity of pairs; 0 for pairs whose signatures say that it is far below the threshold."""
    sizes = table.getnnz(axis=1).astype(np.float64)
    similarity = np.zeros(len(first))
    for start in range(0, len(first), _CHUNK):
        here = np.arange(start, min(start + _CHUNK, len(first)))
        agree = (signatures[first[here]] == signatures[second[here]]).mean(1)
        here = here[agree >= SIMILAR - _MARGIN]
        a, b = first[here], second[here]
        shared = np.asarray(table[a].multiply(table[b]).sum(1)).ravel().astype(np.float64)
        similarity[here] = shared / (sizes[a] + sizes[b] - shared)
    return similarity
