"""Folds never part a group, and no row is in two of train, validation and test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from probes.splits import by_group, leave_one_out


@given(st.integers(3, 12), st.integers(12, 60), st.integers(0, 100))
def test_parts_are_disjoint_cover_everything_and_keep_groups_whole(count, groups, seed):
    names = [f"g{i // 2}" for i in range(2 * groups)]
    folds = by_group(names, count, seed=seed)
    assert len(folds) == count
    tested = np.zeros(len(names), dtype=int)
    for k in range(count):
        parts = np.stack([folds.trained(k), folds.validated(k), folds.tested(k)])
        assert (parts.sum(0) == 1).all() and parts.any(1).all()
        tested += parts[2]
        for part in parts:
            assert (part[::2] == part[1::2]).all()
    assert (tested == 1).all()


def test_one_fold_per_name():
    folds = leave_one_out(["a", "a", "b", "c"], ["1", "1", "2", "3"])
    assert folds.names == ("a", "b", "c")
    assert [list(test) for _, test in folds.splits()] == [[0, 1], [2], [3]]
    assert all(not set(train) & set(test) for train, test in folds.splits())


def test_a_group_under_two_names_is_refused():
    with pytest.raises(UsageError, match="group '1' has rows under 'a' and 'b'"):
        leave_one_out(["a", "b", "c"], ["1", "1", "2"])


def test_too_few_names_or_groups_are_refused():
    with pytest.raises(UsageError, match="only 2 different names"):
        leave_one_out(["a", "b"], ["1", "2"])
    with pytest.raises(UsageError, match="5 folds of 3 groups"):
        by_group(["1", "2", "3"], 5)
