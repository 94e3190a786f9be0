"""Rows that could not be read never pass for results."""

import ml_dtypes
import numpy as np
import pytest

from keras_mgpu_strategy.sources.marks import is_float, marks_of, masked
from keras_mgpu_strategy.types import NO_MARKS, HostBatch, RowMarks

MISSING = np.zeros(20, bool)
MISSING[[3, 4, 11]] = True


MARKS = RowMarks(missing=MISSING)
"""Rows 3, 4 and 11 of 20 could not be read."""


def host_batches(values, size):
    for start in range(0, len(values), size):
        stop = start + size
        yield HostBatch(start, values[start:stop], MARKS.between(start, stop))


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *((1, np.float16), (4, np.float32), (7, np.float64), (20, np.complex64)),
        (7, ml_dtypes.bfloat16),
    ],
)
def test_floats_of_missing_rows_become_nan(size, dtype):
    values = np.arange(40).reshape(20, 2).astype(dtype)
    before = values.copy()
    found = list(masked(host_batches(values, size)))
    assert [batch.start for batch in found] == list(range(0, 20, size))
    joined = np.concatenate([batch.outputs for batch in found])
    assert joined.dtype == dtype
    np.testing.assert_array_equal(np.isnan(joined.astype(np.complex64))[:, 0], MISSING)
    np.testing.assert_array_equal(joined[~MISSING], before[~MISSING])
    np.testing.assert_array_equal(values, before)  # the caller's own array


def test_batches_without_missing_rows_pass_as_they_are():
    batch = HostBatch(5, np.ones((6, 2)), MARKS.between(5, 11))
    (found,) = masked([batch])
    assert found is batch
    batch = HostBatch(5, np.ones((6, 2)))
    (found,) = masked([batch])
    assert found is batch


@pytest.mark.parametrize("dtype", [np.int64, bool, "S3"])
def test_results_without_nan_are_refused_with_the_first_row(dtype):
    batches = host_batches(np.zeros((20, 2), dtype), 4)
    found = masked(batches)
    with pytest.raises(ValueError, match="Row 3 could not be read.*on_bad_file"):
        list(found)


def test_results_without_nan_can_be_left_to_the_file():
    outputs = {"a": np.zeros(20, np.int64), "b": np.zeros((20, 2), np.float32)}
    (found,) = masked([HostBatch(0, outputs, MARKS)], floats_only=True)
    assert found.outputs["a"] is outputs["a"]
    np.testing.assert_array_equal(np.isnan(found.outputs["b"][:, 1]), MISSING)
    with pytest.raises(ValueError, match="results of dtype int64 cannot say so"):
        list(masked([HostBatch(0, outputs, MARKS)]))


def test_read_only_results_are_not_written_to():
    values = np.zeros((20, 2), np.float32)
    values.flags.writeable = False
    (found,) = masked([HostBatch(0, values, MARKS)])
    np.testing.assert_array_equal(np.isnan(found.outputs[:, 0]), MISSING)


def test_sources_may_have_marks():
    class Source:
        def marks(self, start, stop):
            return RowMarks(names=[f"{start} {stop}"])

    assert marks_of(Source())(1, 2) == RowMarks(names=["1 2"])
    assert marks_of(object())(1, 2) is NO_MARKS


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", True), ("float64", True), ("complex128", True), ("int8", False)]
    + [("bool", False), ("S4", False), ("U4", False), ("uint64", False)]
    + [(ml_dtypes.bfloat16, True), (ml_dtypes.float8_e5m2, True)],
)
def test_which_types_have_nan(dtype, expected):
    assert is_float(np.zeros(1, dtype)) == expected
