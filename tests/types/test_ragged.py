"""Rows of unequal length in two arrays, next to lists of rows."""

import numpy as np
import pytest

from keras_mgpu_strategy.types.ragged import Ragged, joined

ROWS = [[1, 2], [], [3], [4, 5, 6], [7]]
RAGGED = Ragged(np.array([9, 1, 2, 3, 4, 5, 6, 7, 9]), np.array([1, 3, 3, 4, 7, 8]))


def rows_of(ragged):
    return ragged.to_tensor().to_list()


def test_rows_and_what_they_are():
    assert rows_of(RAGGED) == ROWS
    assert RAGGED.shape == (5, None) and RAGGED.lengths.tolist() == [2, 0, 1, 3, 1]
    assert RAGGED.nbytes == 7 * RAGGED.dtype.itemsize
    assert Ragged(np.zeros((4, 2, 3), "f4"), np.array([0, 1])).nbytes == 24


def test_slices_are_views_of_consecutive_rows():
    assert rows_of(RAGGED[1:4]) == ROWS[1:4]
    assert rows_of(RAGGED[1:4][1:]) == ROWS[2:4]
    assert len(RAGGED[3:3]) == 0 and np.shares_memory(RAGGED[2:].values, RAGGED.values)
    with pytest.raises(ValueError, match="expected consecutive ones"):
        _ = RAGGED[::2]


def test_rows_in_any_order_and_joined():
    assert rows_of(RAGGED.taken(np.array([3, 0, 1]))) == [[4, 5, 6], [1, 2], []]
    assert rows_of(joined([RAGGED[3:], RAGGED[:2]])) == [*ROWS[3:], *ROWS[:2]]
