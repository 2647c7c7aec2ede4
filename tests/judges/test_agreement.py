import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from interp.errors import UsageError
from interp.judges.agreement import agreement_table, cohen_kappa, kappa_matrix, recall_by_family, refusal_rates
from interp.stats import group_weights, wilson

YES, NO = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
HALF = np.array([True, True, True, False, False, False])


def judged(text: str) -> np.ndarray:
    return np.array([c == "y" for c in text])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    found = cohen_kappa(first, second)
    if len(set(first)) == len(set(second)) == 1:
        assert np.isnan(found.value)
    else:
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert found.n == len(pairs)
    assert np.isnan(found.lo) and np.isnan(found.hi)


def test_known_values() -> None:
    assert cohen_kappa(HALF, HALF).value == 1
    assert cohen_kappa(HALF, ~HALF).value == -1
    assert cohen_kappa(HALF, judged("ynynyn")).value == pytest.approx(1 / 3)
    # The textbook case: 20 both, 15 neither, 10 and 5 apart.
    first, second = judged("y" * 25 + "n" * 25), judged("y" * 20 + "n" * 5 + "y" * 10 + "n" * 15)
    assert cohen_kappa(first, second).value == pytest.approx(0.4)


@pytest.mark.parametrize(("first", "second"), [(YES, YES), (NO, NO), (YES, NO), (NO[:0], NO[:0])])
def test_constant_judges_have_no_kappa(first: np.ndarray, second: np.ndarray) -> None:
    found = cohen_kappa(first, second, np.ones((5, len(first))))
    assert np.isnan([found.value, found.lo, found.hi]).all()
    assert found.n == len(first)


def test_one_constant_judge_agrees_by_chance() -> None:
    assert cohen_kappa(YES, HALF).value == 0


def test_the_interval_is_that_of_groups() -> None:
    """Ten copies of every response say no more than one does."""
    rng = np.random.default_rng(0)
    first = rng.random(40) < 0.5
    second = first ^ (rng.random(40) < 0.2)
    groups = [str(i) for i in range(40)]
    single = cohen_kappa(first, second, group_weights(groups))
    many = cohen_kappa(np.repeat(first, 10), np.repeat(second, 10), group_weights(list(np.repeat(groups, 10))))
    apart = cohen_kappa(np.repeat(first, 10), np.repeat(second, 10), group_weights([str(i) for i in range(400)]))
    assert single.value == pytest.approx(many.value)
    assert (single.lo, single.hi) == pytest.approx((many.lo, many.hi))
    assert single.lo < single.value < single.hi
    assert apart.hi - apart.lo < 0.5 * (many.hi - many.lo)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        first = rng.random(80) < 0.5
        second = np.where(rng.random(80) < 0.6, first, rng.random(80) < 0.5)  # kappa is 0.6
        weights = group_weights([str(i) for i in range(80)], resamples=200)
        found = cohen_kappa(first, second, weights)
        hits += found.lo <= 0.6 <= found.hi
    assert 88 <= hits <= 100


def test_a_table_of_every_pair() -> None:
    verdicts = {"a": HALF, "b": HALF, "c": NO}
    table = agreement_table(verdicts, list("aabbcc"))
    assert list(table.columns) == ["first", "second", "kappa", "lo", "hi", "n", "left_out"]
    assert list(zip(table["first"], table["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert list(table["kappa"]) == [1, 0, 0]
    assert set(table["n"]) == {6} and set(table["left_out"]) == {0}
    matrix = kappa_matrix(table)
    assert list(matrix.index) == list(matrix.columns) == ["a", "b", "c"]
    assert (matrix.to_numpy() == matrix.to_numpy().T).all()
    assert list(np.diag(matrix)) == [1, 1, 1]


def test_unreadable_responses_are_left_out_and_counted() -> None:
    first, second = judged("yyynnnyy"), judged("yyynnnnn")
    unreadable = judged("nnnnnnyy")
    [row] = agreement_table({"a": first, "b": second}, list("abcdefgh"), unreadable=unreadable).itertuples()
    assert (row.kappa, row.n, row.left_out) == (1, 6, 2)
    [row] = agreement_table({"a": first, "b": second}, list("abcdefgh"), unreadable=np.ones(8, bool)).itertuples()
    assert np.isnan(row.kappa) and (row.n, row.left_out) == (0, 8)


def test_one_group_has_no_interval() -> None:
    [row] = agreement_table({"a": HALF, "b": judged("ynynyn")}, ["g"] * 6).itertuples()
    assert row.kappa == pytest.approx(1 / 3)
    assert np.isnan(row.lo) and np.isnan(row.hi)


def test_the_same_seed_gives_the_same_intervals() -> None:
    verdicts = {"a": HALF, "b": judged("ynynyn")}
    tables = [agreement_table(verdicts, list("abcdef"), seed=seed) for seed in (0, 0)]
    pd.testing.assert_frame_equal(*tables)


def test_lengths_must_agree() -> None:
    with pytest.raises(UsageError, match="'b' has 5 verdicts for 6 responses"):
        agreement_table({"a": HALF, "b": HALF[:5]}, list("abcdef"))
    with pytest.raises(UsageError, match="'a' has 6 verdicts for 5 responses"):
        recall_by_family({"a": HALF}, [""] * 5, HALF)


def test_rates() -> None:
    table = refusal_rates({"a": HALF, "b": NO}, unreadable=judged("ynnnnn"))
    assert list(table["judge"]) == ["a", "b"]
    assert list(table["n"]) == [5, 5]
    expected = wilson(2, 5)
    assert tuple(table.iloc[0][["rate", "lo", "hi"]]) == (expected.value, expected.lo, expected.hi)


def test_recall_and_false_alarms() -> None:
    verdict = judged("yynynnyn")
    families = ["apology", "apology", "apology", "policy", "policy", "", "", ""]
    table = recall_by_family({"a": verdict, "b": ~verdict}, families, judged("yyyyynnn"))
    assert list(table.columns) == ["judge", "measure", "family", "rate", "lo", "hi", "n"]
    rows = {(r.judge, r.measure, r.family): (r.rate, r.n) for r in table.itertuples()}
    assert rows == {
        ("a", "recall", "apology"): (pytest.approx(2 / 3), 3),
        ("a", "recall", "policy"): (0.5, 2),
        ("a", "false alarms", ""): (pytest.approx(1 / 3), 3),
        ("b", "recall", "apology"): (pytest.approx(1 / 3), 3),
        ("b", "recall", "policy"): (0.5, 2),
        ("b", "false alarms", ""): (pytest.approx(2 / 3), 3),
    }
    expected = wilson(2, 3)
    assert (table["lo"][0], table["hi"][0]) == (expected.lo, expected.hi)


def test_recall_of_nothing() -> None:
    table = recall_by_family({"a": NO}, ["apology"] * 6, YES, unreadable=HALF)
    assert list(table["n"]) == [3, 0]
    assert np.isnan(table["rate"][1]) and (table["lo"][1], table["hi"][1]) == (0, 1)
