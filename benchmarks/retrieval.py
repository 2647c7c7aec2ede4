"""Retrieval at the size of the paper: ``python benchmarks/retrieval.py [--help]``.

The bundled prompts are embedded by the packaged encoder and tiled to 1.2 million texts, each copy moved by random noise
and brought back to length 1, so that the vectors lie as those of real texts do. The index is built as users build it.
Queries are noisy copies, too. Exact and approximate search take turns on the same queries; speed is the ratio of their
times in one run, and agreement the share of queries whose nearest text both find.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from interp.models.text_encoder import load_text_encoder
from interp.prompts.twins import bundled_twins, subtle_twins
from interp.stats import wilson
from interp.tga.corpus import Corpus
from interp.tga.index_file import read_index, write_index
from interp.tga.retrieval import SAME, TextIndex

BATCH = 65_536
SPACE = "benchmark"


def jittered(base: np.ndarray, rows: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Copies of some vectors moved by noise of a given length, at length 1 again."""
    moved = base[rows] + rng.standard_normal((len(rows), base.shape[1]), dtype=np.float32) * (
        noise / base.shape[1] ** 0.5
    )
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def tiled(base: np.ndarray, n: int, noise: float, folder: Path, rng: np.random.Generator) -> np.ndarray:
    """n vectors on disk, made in batches."""
    out = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, base.shape[1]))
    for start in range(0, n, BATCH):
        rows = np.arange(start, min(start + BATCH, n)) % len(base)
        out[start : start + len(rows)] = jittered(base, rows, noise, rng)
    return out


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{what:<42}{time.perf_counter() - started:>9.1f} s")


def clock(search: Callable[[], object]) -> float:
    started = time.perf_counter()
    search()
    return time.perf_counter() - started


def compare(index: TextIndex, queries: np.ndarray, repeats: int) -> None:
    """Prints the agreement of both searches and the ratio of their times."""
    exact, approximate = index.search(queries, k=2, exact=True), index.search(queries, k=2)
    agree = wilson(int((approximate[0][:, 0] >= exact[0][:, 0] - SAME).sum()), len(queries))
    seconds = {
        name: [clock(lambda one=one: index.search(queries, k=2, exact=one)) for _ in range(repeats)]
        for name, one in (("exact", True), ("approximate", False))
    }
    print(f"recall@1 of {len(queries)} queries: {agree.value:.4f} [{agree.lo:.4f}, {agree.hi:.4f}]")
    for name, each in seconds.items():
        print(f"{name:<42}{statistics.median(each) / len(queries) * 1e3:>9.3f} ms per query")
    ratios = [a / b for a, b in zip(seconds["exact"], seconds["approximate"], strict=True)]
    print(f"{'exact / approximate':<42}{statistics.median(ratios):>9.1f}  ({min(ratios):.1f} to {max(ratios):.1f})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Builds and searches an index of the size of the paper.")
    parser.add_argument("--texts", type=int, default=1_200_000, help="how many texts")
    parser.add_argument("--queries", type=int, default=512, help="how many queries")
    parser.add_argument("--noise", type=float, default=0.5, help="length of the noise, of vectors of length 1")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    rng = np.random.default_rng(0)
    texts = list(
        dict.fromkeys(p.text for s in (bundled_twins("train"), bundled_twins("test"), subtle_twins()) for p in s)
    )
    with timed(f"embedding {len(texts)} texts"):
        base = load_text_encoder().encode(texts).numpy()
    corpus = Corpus(tuple(f"{texts[i % len(texts)]} ({i})" for i in range(args.texts)), ("tiled",) * args.texts)
    print(f"{args.texts:,} texts of {base.shape[1]} numbers, noise {args.noise:g}, FAISS {faiss.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        vectors = tiled(base, args.texts, args.noise, Path(folder), rng)
        with timed("building the index"):
            index = TextIndex.of_vectors(corpus, vectors, space=SPACE, kind="ivf")
        design, recall = index.design, index.design.recall
        print(f"{design.lists} lists, {design.probes} read; recall when built {recall.value:.4f}, n = {recall.n}")
        queries = jittered(base, rng.integers(len(base), size=args.queries), args.noise, rng)
        compare(index, queries, args.repeats)
        with timed("retrieving, captions left out"):
            found = index.retrieve([index.corpus.texts[i] for i in range(args.queries)], vectors[: args.queries])
        if any(r.row == i for i, r in enumerate(found)):
            raise SystemExit("A caption was given back to itself; no figures.")
        with timed("writing and reading it back"):
            digest = read_index(write_index(index, Path(folder) / "index"), space=SPACE).digest
        if digest != index.digest:
            raise SystemExit("The index that was read back is another one; no figures.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    vectors_size = args.texts * base.shape[1] * 4 / 2**30
    print(f"{'peak memory':<42}{peak:>9.1f} GiB ({vectors_size:.1f} GiB of vectors, once mapped and once indexed)")


if __name__ == "__main__":
    main()
