"""Pairs of one harmful and one harmless prompt, the most alike first."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from interp.prompts.duplicates import normalised
from interp.prompts.form import origins, said
from interp.prompts.prompt import Prompt

EDGES = 4_000_000
NEIGHBOURS = 32
ROUNDS = 20
_BLOCK = 512

_Rows = Int[ndarray, " _row"]


def paired(prompts: Sequence[Prompt], scaled: Float[ndarray, "prompt feature"]) -> Int[ndarray, "pair two"]:
    """Pairs greedily: the two kinds of a group first, then whatever is nearest; each prompt is in one pair at most.

    Args:
        prompts: all with a label.
        scaled: standardised features; their Euclidean distance is what is near.

    Returns:
        (row of the harmful, row of the harmless prompt), nearest first; of a stratum of `strata` each. Texts that stand
        there under both labels are left out.
    """
    both = _both_labels(prompts)
    found: list[tuple[float, int, int]] = []
    for bad, good in strata(prompts):
        bad, good = (np.array([i for i in side if i not in both], dtype=int) for side in (bad, good))
        found += _stratum(prompts, scaled, bad, good)
    return np.array([(i, j) for _, i, j in sorted(found)], dtype=int).reshape(-1, 2)


def strata(prompts: Sequence[Prompt], *, only: str = "") -> Iterator[tuple[_Rows, _Rows]]:
    """Yields (harmful rows, harmless rows) of each combination of dataset, split and presence of a picture.

    Args:
        prompts: all with a label.
        only: ``dataset`` or ``image`` to tell prompts apart by this alone.
    """
    known = {
        "dataset": origins(prompts),
        "image": [p.image is not None for p in prompts],
        "split": [p.split for p in prompts],
    }
    rows: dict[tuple[object, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, key in enumerate(zip(*([known[only]] if only else known.values()), strict=True)):
        rows[key][prompts[i].label != "harmful"].append(i)
    for bad, good in rows.values():
        yield np.array(bad, dtype=int), np.array(good, dtype=int)


def pair_groups(prompts: Sequence[Prompt]) -> list[str]:
    """Groups that part neither a pair nor a group.

    Args:
        prompts: pair after pair, so an even number.

    Returns:
        One name per prompt, that of some unit among those it is tied to.
    """
    parent = {p.unit: p.unit for p in prompts}

    def root(unit: str) -> str:
        while parent[unit] != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    for first, second in zip(prompts[::2], prompts[1::2], strict=True):
        parent[root(first.unit)] = root(second.unit)
    return [root(p.unit) for p in prompts]


def _stratum(
    prompts: Sequence[Prompt], scaled: Float[ndarray, "prompt feature"], bad: _Rows, good: _Rows
) -> list[tuple[float, int, int]]:
    edges = _within_groups(prompts, scaled, bad, good)
    found: list[tuple[float, int, int]] = []
    for _ in range(ROUNDS):
        taken = _greedy(edges)
        found += taken
        bad = np.setdiff1d(bad, [i for _, i, _ in taken])
        good = np.setdiff1d(good, [j for _, _, j in taken])
        if not len(bad) or not len(good):
            break
        # Prompts of the same form have the same nearest ones, so those left over look again.
        edges = _nearest(scaled, bad, good)
    return found


def _greedy(edges: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    used: set[int] = set()
    taken = []
    for distance, i, j in sorted(edges):
        if i not in used and j not in used:
            used |= {i, j}
            taken.append((distance, i, j))
    return taken


def _within_groups(
    prompts: Sequence[Prompt], scaled: Float[ndarray, "prompt feature"], bad: _Rows, good: _Rows
) -> list[tuple[float, int, int]]:
    members = defaultdict(list)
    for j in good.tolist():
        members[prompts[j].unit].append(j)
    return [
        (float(np.linalg.norm(scaled[i] - scaled[j])), i, j) for i in bad.tolist() for j in members[prompts[i].unit]
    ]


def _nearest(scaled: Float[ndarray, "prompt feature"], bad: _Rows, good: _Rows) -> list[tuple[float, int, int]]:
    """The nearest harmless prompts of each harmful one: all of them in a small set, else at least 32."""
    k = min(len(good), max(NEIGHBOURS, EDGES // len(bad) // 8))
    squares = (scaled[good] ** 2).sum(1)
    edges: list[tuple[float, int, int]] = []
    for start in range(0, len(bad), _BLOCK):
        rows = bad[start : start + _BLOCK]
        distance = (scaled[rows] ** 2).sum(1)[:, None] + squares - 2 * scaled[rows] @ scaled[good].T
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        kept = np.sqrt(np.maximum(np.take_along_axis(distance, near, 1), 0.0))
        for i, js, ds in zip(rows.tolist(), good[near].tolist(), kept.tolist(), strict=True):
            edges += zip(ds, [i] * k, js, strict=True)
    return edges


def _both_labels(prompts: Sequence[Prompt]) -> set[int]:
    labels = defaultdict(set)
    texts = [normalised(said(p)) for p in prompts]
    for text, p in zip(texts, prompts, strict=True):
        labels[text].add(p.label)
    return {i for i, text in enumerate(texts) if len(labels[text]) > 1}
