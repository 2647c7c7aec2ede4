import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CacheError, ModelMismatch, UsageError
from interp.models.text_encoder import TextEncoder
from interp.prompts.duplicates import normalised
from interp.tga import retrieval
from interp.tga.corpus import Corpus
from interp.tga.index_file import RECORD, SEARCHED, TEXTS, read_index, write_index
from interp.tga.retrieval import TextIndex


class Letters(TextEncoder):
    """An encoder whose vectors are counts of letters, so that nearness can be checked by eye."""

    def __init__(self):
        self.digest = "letters"

    def encode(self, texts, **_):
        counts = torch.tensor([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], dtype=torch.float32)
        return torch.nn.functional.normalize(counts + 0.01, dim=-1)


def unit(n, d, seed=0):
    """Random vectors of length 1, in clusters as texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, n // 20), d))
    x = centres[rng.integers(len(centres), size=n)] + 0.5 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def corpus(n):
    return Corpus.of({"captions": [f"text number {i}" for i in range(n)]})


def test_a_corpus_holds_no_text_twice():
    found = Corpus.of({"captions": ["A knife!", "a  KNIFE", "a gun"], "harmful": ["a gun.", "a bomb", " ", ""]})
    assert found.texts == ("A knife!", "a gun", "a bomb") and found.origins == ("captions", "captions", "harmful")
    assert found.digest != Corpus(found.texts, ("captions", "harmful", "harmful")).digest
    with pytest.raises(UsageError, match="at least 2"):
        Corpus.of({"captions": ["a knife", "A knife"]})


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_what_is_found_is_the_largest_inner_product(kind):
    vectors, queries = unit(600, 16), unit(50, 16, seed=1)
    index = TextIndex.of_vectors(corpus(600), vectors, space="s", kind=kind)
    similarities, rows = index.search(queries, k=3, exact=True)
    truth = torch.from_numpy(queries @ vectors.T).topk(3)
    np.testing.assert_allclose(similarities, truth.values.numpy(), atol=1e-5)
    assert (rows == truth.indices.numpy()).all()


def test_approximate_search_agrees_with_exact_search_as_often_as_it_says():
    vectors = unit(5000, 16)
    index = TextIndex.of_vectors(corpus(5000), vectors, space="s", kind="ivf")
    recall = index.design.recall
    assert recall.value >= retrieval.TARGET_RECALL and recall.lo <= recall.value <= recall.hi and recall.n == 512
    assert index.design.probes < index.design.lists, "it reads fewer lists than there are"
    queries = unit(400, 16)  # of the same clusters
    agree = index.search(queries)[1][:, 0] == index.search(queries, exact=True)[1][:, 0]
    assert agree.mean() > 0.97


def test_size_chooses_the_kind(monkeypatch):
    monkeypatch.setattr(retrieval, "LARGEST_FLAT", 100)
    assert TextIndex.of_vectors(corpus(100), unit(100, 8), space="s").design == retrieval.Design("flat")
    assert TextIndex.of_vectors(corpus(101), unit(101, 8), space="s").design.kind == "ivf"


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@given(captions=st.lists(st.sampled_from(["A KNIFE", "a gun.", "beer", "unknown words", "  a  gun"]), min_size=1))
def test_no_caption_is_given_back_to_itself(kind, captions):
    index = TextIndex.build(Corpus.of({"captions": ["a knife", "a gun", "beer"]}), Letters(), kind=kind)
    for caption, found in zip(captions, index.retrieve_by_caption(captions, Letters()), strict=True):
        assert normalised(found.text) != normalised(caption)
        assert index.corpus.texts[found.row] == found.text


def test_retrieval_by_vectors_of_the_pictures():
    index = TextIndex.build(Corpus.of({"captions": ["a knife", "beer"], "harmful": ["knives"]}), Letters())
    by_states = index.retrieve(["a knife", "a knife"], Letters().encode(["a knife", "bear"]))
    assert [(r.text, r.origin) for r in by_states] == [("knives", "harmful"), ("beer", "captions")]
    assert by_states[0].similarity == pytest.approx(
        float(Letters().encode(["a knife"]) @ Letters().encode(["knives"]).T)
    )


def test_vectors_that_can_not_be_indexed_are_refused():
    with pytest.raises(UsageError, match="99 vectors"):
        TextIndex.of_vectors(corpus(100), unit(99, 8), space="s")
    bad = unit(100, 8)
    for value in (np.nan, 2.0):
        bad[70] = value
        with pytest.raises(UsageError, match="vector 70"):
            TextIndex.of_vectors(corpus(100), bad, space="s")
    with pytest.raises(UsageError, match="9 numbers"):
        TextIndex.of_vectors(corpus(100), unit(100, 8), space="s").search(unit(1, 9))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("wrong", [np.nan, 3.0])
def test_queries_that_are_no_direction_are_refused(kind, wrong):
    index, queries = TextIndex.of_vectors(corpus(300), unit(300, 8), space="s", kind=kind), unit(4, 8, seed=1)
    queries[2] *= wrong
    with pytest.raises(UsageError, match="vector 2 is not of length 1"):
        index.retrieve(["a"] * 4, queries)


def test_equal_digests_mean_equal_lists(monkeypatch):
    monkeypatch.setattr(retrieval, "POINTS_PER_LIST", 4)
    vectors = unit(3000, 16)
    one, other, again = (TextIndex.of_vectors(corpus(3000), vectors, space="s", kind="ivf", seed=k) for k in (0, 1, 0))
    assert one.digest == again.digest != other.digest
    queries = unit(50, 16, seed=2)
    np.testing.assert_array_equal(one.search(queries, k=3)[1], again.search(queries, k=3)[1])


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_it_is_saved_and_read_back(tmp_path, kind):
    index = TextIndex.of_vectors(corpus(300), unit(300, 8), space="letters", kind=kind)
    found = read_index(write_index(index, tmp_path / "index"), space="letters")
    assert found.digest == index.digest and found.design == index.design and found.corpus == index.corpus
    queries = unit(20, 8, seed=2)
    for a, b in zip(index.search(queries, k=4), found.search(queries, k=4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_encoder_or_a_damaged_file_is_refused(tmp_path):
    index = TextIndex.build(Corpus.of({"captions": ["a knife", "beer", "a gun"]}), Letters())
    folder = write_index(index, tmp_path / "index")
    with pytest.raises(ModelMismatch, match="encoder"):
        read_index(folder, space="others")
    other = Letters()
    other.digest = "others"
    with pytest.raises(ModelMismatch, match="encoder"):
        index.retrieve_by_caption(["a knife"], other)
    for name in (SEARCHED, TEXTS, RECORD):
        path = folder / name
        kept = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(kept.replace(b"letters", b"letterz") if name == RECORD else kept[:-1] + b"\x00\x01")
        with pytest.raises((CacheError, ModelMismatch)):
            read_index(folder, space="letters")
        path.write_bytes(kept)
    assert read_index(folder, space="letters").digest == index.digest
    (folder / TEXTS).unlink()
    with pytest.raises(CacheError, match="can not be read"):
        read_index(folder, space="letters")


def test_digests_tell_texts_vectors_and_space_apart():
    vectors = unit(300, 8)
    same = [TextIndex.of_vectors(corpus(300), vectors, space="s").digest for _ in range(2)]
    others = [
        TextIndex.of_vectors(corpus(300), vectors, space="t").digest,
        TextIndex.of_vectors(corpus(300), vectors, space="s", kind="ivf").digest,
        TextIndex.of_vectors(corpus(300), unit(300, 8, seed=1), space="s").digest,
        TextIndex.of_vectors(Corpus.of({"other": [f"text number {i}" for i in range(300)]}), vectors, space="s").digest,
    ]
    assert same[0] == same[1] and len({same[0], *others}) == 5
