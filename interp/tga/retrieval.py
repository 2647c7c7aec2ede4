"""Retrieval: for every picture the text of a corpus that is nearest to it and is not its caption.

The index is FAISS (https://github.com/facebookresearch/faiss) over vectors of length 1, so an inner product is a
cosine. Small corpora are searched exactly; large ones by an inverted file whose recall is measured when it is built.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import faiss
import numpy as np
import xxhash
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.cache.identity import canonical_json
from interp.errors import ModelMismatch, UsageError
from interp.models.text_encoder import TextEncoder
from interp.prompts.duplicates import normalised
from interp.stats import Estimate, wilson
from interp.tga.corpus import Corpus

LARGEST_FLAT = 100_000
"""Corpora up to this size are searched exactly."""
TARGET_RECALL = 0.99
CALIBRATION = 512
POINTS_PER_LIST = 64
BATCH = 65_536
SAME = 1e-5
"""Two similarities that differ by less are the same in float32; of equally near texts either is right."""

Vectors = Float[ndarray, "text d"] | Float[Tensor, "text d"]
Kind = Literal["flat", "ivf"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A text found for a picture.

    Attributes:
        text: the text.
        origin: where in the corpus it comes from.
        row: its number in the corpus.
        similarity: cosine with the query, in [-1, 1].
    """

    text: str
    origin: str
    row: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Design:
    """How an index searches.

    Attributes:
        kind: flat (exact) or ivf (an inverted file: only the lists nearest to the query are read).
        lists: how many lists the texts are in; 0 for flat.
        probes: how many of them are read; 0 for flat.
        recall: share of the corpus's own texts whose nearest other text is found, with its interval; None for flat.
            Queries from elsewhere, such as image states, lie farther from all lists and may find less: compare a
            sample of them with an ``exact`` search.
    """

    kind: Kind
    lists: int = 0
    probes: int = 0
    recall: Estimate | None = None


class TextIndex:
    """A corpus that can be searched by vectors; make one with `build` or `of_vectors`.

    Attributes:
        corpus: the texts.
        space: digest of what made the vectors; queries must come from the same.
        design: how it searches, and how well.
        vectors_digest: digest of the vectors.
    """

    def __init__(self, corpus: Corpus, searched: Any, *, space: str, design: Design, vectors_digest: str) -> None:
        self.corpus, self.space, self.design = corpus, space, design
        self.vectors_digest, self.searched = vectors_digest, searched

    @classmethod
    def build(cls, corpus: Corpus, encoder: TextEncoder, **options: Any) -> "TextIndex":
        """Embeds a corpus with a text encoder and indexes it; the options are those of `of_vectors`."""
        return cls.of_vectors(corpus, encoder.encode(corpus.texts), space=encoder.digest, **options)

    @classmethod
    def of_vectors(
        cls,
        corpus: Corpus,
        vectors: Vectors,
        *,
        space: str,
        kind: Kind | Literal["auto"] = "auto",
        seed: int = 0,
        progress: Progress = lambda *_: None,
    ) -> "TextIndex":
        """Indexes vectors from anywhere: a text encoder, or states of a model at one layer.

        Args:
            corpus: the texts.
            vectors: (text, d) float32 of length 1, in their order; may be memory-mapped. They are copied once, in
                batches, so the peak is twice their size: 3.7 GB for 1.2 million texts of 384 numbers.
            space: digest of what made them.
            kind: flat, ivf, or auto: flat up to `LARGEST_FLAT` texts.
            seed: of the sample that lists and recall are made from.
            progress: called with (texts indexed, texts in all).

        Raises:
            UsageError: for vectors that are not one per text, of length 1 and float32.
        """
        array = np.asarray(vectors)
        if array.shape[0] != len(corpus) or array.dtype != np.float32:
            raise UsageError(
                f"{array.shape[0]} vectors of {array.dtype} for {len(corpus)} texts; give one float32 each."
            )
        kind = ("flat" if len(corpus) <= LARGEST_FLAT else "ivf") if kind == "auto" else kind
        rng = np.random.default_rng(seed)
        searched, lists = _empty(kind, array, rng)
        digest = xxhash.xxh3_128()
        for start in range(0, len(array), BATCH):
            part = np.ascontiguousarray(array[start : start + BATCH])
            _require_unit(part, start)
            digest.update(part.data)
            searched.add(part)
            progress(start + len(part), len(array))
        design = Design("flat") if kind == "flat" else _calibrated(searched, lists, array, rng)
        return cls(corpus, searched, space=space, design=design, vectors_digest=digest.hexdigest())

    def __len__(self) -> int:
        return len(self.corpus)

    @property
    def digest(self) -> str:
        """sha256 over texts, vectors, space and the way of searching: equal digests retrieve equal texts."""
        design = {k: v for k, v in asdict(self.design).items() if k != "recall"}
        if self.design.kind == "ivf":
            # Which list a text is in decides whether it is read.
            centroids = self.searched.quantizer.reconstruct_n(0, self.design.lists)
            design["centroids"] = xxhash.xxh3_128(np.ascontiguousarray(centroids).data).hexdigest()
        parts = {"corpus": self.corpus.digest, "vectors": self.vectors_digest, "space": self.space, "design": design}
        return hashlib.sha256(canonical_json(parts)).hexdigest()

    def search(
        self, queries: Vectors, *, k: int = 1, exact: bool = False
    ) -> tuple[Float[ndarray, "query k"], Int[ndarray, "query k"]]:
        """The nearest texts.

        Args:
            queries: (query, d) float32 of length 1, from the same space.
            k: how many.
            exact: read every list of an inverted file.

        Returns:
            Cosines, descending, and rows of the corpus; where there are fewer than k texts, row -1.

        Raises:
            UsageError: for queries of another width, not of length 1, or that are no numbers.
        """
        array = np.ascontiguousarray(np.asarray(queries), dtype=np.float32)
        if array.shape[1] != self.searched.d:
            raise UsageError(f"queries of {array.shape[1]} numbers for an index of {self.searched.d}.")
        _require_unit(array, 0)
        if self.design.kind == "flat":
            found: tuple[ndarray, ndarray] = self.searched.search(array, k)
            return found
        return _probe(self.searched, array, k, self.design.lists if exact else self.design.probes)

    def retrieve(self, captions: Sequence[str], queries: Vectors, *, exact: bool = False) -> list[Retrieved]:
        """For every picture the nearest text that is not its caption, nor differs from it by form alone.

        Args:
            captions: of the pictures.
            queries: (picture, d) float32 of length 1: the captions embedded, the pictures embedded by a CLIP model,
                or image states of the layer that the index was made from.
            exact: see `search`.
        """
        similarities, rows = self.search(queries, k=2, exact=exact)
        if not exact and (rows < 0).any():
            # Two lists with a single text each: read them all.
            similarities, rows = self.search(queries, k=2, exact=True)
        return [self._other(*found) for found in zip(captions, similarities, rows, strict=True)]

    def retrieve_by_caption(
        self, captions: Sequence[str], encoder: TextEncoder, *, exact: bool = False
    ) -> list[Retrieved]:
        """`retrieve` with the captions embedded.

        Raises:
            ModelMismatch: for another encoder than the index was made with.
        """
        self.require_space(encoder.digest)
        return self.retrieve(captions, encoder.encode(captions), exact=exact)

    def require_space(self, space: str, place: str = "index") -> None:
        """Raises ModelMismatch when vectors of ``space`` can not be compared with those of the index."""
        if space != self.space:
            raise ModelMismatch(place, "encoder", self.space, space)

    def _other(self, caption: str, similarities: ndarray, rows: ndarray) -> Retrieved:
        """The first of two hits that is not the caption; the corpus holds no text twice, so one of them is not."""
        first = int(normalised(self.corpus.texts[rows[0]]) == normalised(caption))
        row = int(rows[first])
        if row < 0:
            raise UsageError(f"no text but the caption {caption!r} is there to be retrieved; give more texts.")
        return Retrieved(self.corpus.texts[row], self.corpus.origins[row], row, float(similarities[first]))


def _require_unit(part: Float[ndarray, "text d"], start: int) -> None:
    off = np.abs(np.einsum("td,td->t", part, part) - 1)
    if not (off < 1e-3).all():
        row = int(np.nan_to_num(off, nan=np.inf).argmax())
        raise UsageError(f"vector {start + row} is not of length 1 (its square differs by {off[row]:.2g}).")


def _empty(kind: str, vectors: ndarray, rng: np.random.Generator) -> tuple[Any, int]:
    """An index without texts; the lists of an inverted file are the k-means of a sample."""
    n, d = vectors.shape
    flat = faiss.IndexFlatIP(d)
    if kind == "flat":
        return flat, 0
    lists = max(1, min(int(2 * n**0.5), n // 2))
    index = faiss.IndexIVFFlat(flat, d, lists, faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(rng.choice(n, size=min(n, lists * POINTS_PER_LIST), replace=False))
    # Small lists are meant; FAISS would warn about them on standard error.
    index.cp.min_points_per_centroid = 1
    index.train(np.ascontiguousarray(vectors[sample]))
    return index, lists


def _probe(index: Any, queries: ndarray, k: int, probes: int) -> tuple[ndarray, ndarray]:
    settings: Any = faiss.SearchParametersIVF
    found: tuple[ndarray, ndarray] = index.search(queries, k, params=settings(nprobe=probes))
    return found


def _calibrated(index: Any, lists: int, vectors: ndarray, rng: np.random.Generator) -> Design:
    """The fewest lists to read, in powers of two, that find the nearest other text of 99 % of a sample."""
    rows = np.sort(rng.choice(len(vectors), size=min(len(vectors), CALIBRATION), replace=False))
    queries = np.ascontiguousarray(vectors[rows])
    best = _nearest_other(*_probe(index, queries, 2, lists), rows)
    probes = 1
    while True:
        found = _nearest_other(*_probe(index, queries, 2, probes), rows)
        recall = wilson(int((found >= best - SAME).sum()), len(rows))
        if recall.value >= TARGET_RECALL or probes >= lists:
            return Design("ivf", lists, min(probes, lists), recall)
        probes *= 2


def _nearest_other(similarities: ndarray, found: ndarray, rows: ndarray) -> Float[ndarray, " query"]:
    """Similarity of the nearest text that is not the query itself; -inf where none was found."""
    other = np.where((found == rows[:, None]) | (found < 0), -np.inf, similarities)
    return np.asarray(other.max(axis=1), dtype=np.float64)
