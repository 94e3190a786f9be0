"""All rows with NaN or infinite results are named."""

import warnings

import ml_dtypes
import numpy as np
import pytest

from keras_mgpu_strategy.runs.result_checks import NonFiniteRows
from keras_mgpu_strategy.types import NO_MARKS, HostBatch, RowMarks


def batches(values, sizes, start=0, marks=NO_MARKS):
    """An array as batches of the given sizes."""
    stops = np.cumsum(sizes)
    for first, stop in zip([0, *stops[:-1]], stops, strict=True):
        some = marks.between(first, stop)
        yield HostBatch(start + int(first), values[first:stop], some)


def rows_with(bad, num_rows=40, value=np.nan, dtype=np.float32):
    values = np.zeros((num_rows, 3), dtype)
    values[list(bad), 1] = value
    return values


def complaint(values, sizes, start=0, marks=NO_MARKS):
    """The message of `policy="raise"` at the end of the input, or None."""
    watching = NonFiniteRows("warn").watching(batches(values, sizes, start, marks))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for before, after in zip(batches(values, sizes, start), watching, strict=True):
            assert after.start == before.start
            assert after.outputs.tobytes() == before.outputs.tobytes()
    assert len(record) <= 1
    return str(record[0].message) if record else None


@pytest.mark.parametrize("policy", ["", "skip", None, "WARN"])
def test_other_policies_are_refused(policy):
    with pytest.raises(ValueError, match=r"on_nonfinite=.*Expected one of \['raise'"):
        NonFiniteRows(policy)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ([0], "in 1 rows: 0."),
        ([39], "in 1 rows: 39."),
        ([3, 5], "in 2 rows: 3, 5."),
        ([3, 4, 5, 20], "in 4 rows: 3 to 5, 20."),
        ([8, 9, 10, 11], "in 4 rows: 8 to 11."),  # over the end of a batch
        (range(40), "in 40 rows: 0 to 39."),
        (range(0, 20, 2), "10 rows: 0, 2, 4, 6, 8, 10, 12, 14, 16, 18."),
        (range(0, 22, 2), "11 rows: 0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and more."),
        (range(0, 40, 2), "20 rows: 0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and more."),
    ],
)
def test_rows_are_named(bad, text):
    for value in (np.nan, np.inf, -np.inf):
        assert text in complaint(rows_with(bad, value=value), [10, 10, 20])


def test_rows_are_those_of_the_input():
    assert "in 2 rows: 103 to 104." in complaint(rows_with([3, 4]), [4, 36], start=100)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_any_width_are_checked(dtype):
    assert "in 1 rows: 7." in complaint(rows_with([7], dtype=dtype), [40])
    assert complaint(rows_with([], dtype=dtype), [40]) is None


@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex64, "S3"])
def test_other_types_pass(dtype):
    assert complaint(np.zeros((40, 3), dtype), [10, 30]) is None


def test_complex_numbers_are_checked():
    assert "rows: 7." in complaint(rows_with([7], dtype=np.complex64), [40])


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (5,), (5, 2, 3)])
def test_any_shape_passes(shape):
    assert complaint(np.zeros(shape, np.float32), [shape[0]]) is None


def test_every_output_is_checked():
    outputs = {"a": np.zeros((4,)), "b": [np.zeros((4, 2)), np.ones((4,), int)]}
    outputs["a"][1] = np.nan
    outputs["b"][0][2, 1] = np.inf
    with pytest.raises(ValueError, match="in 2 rows: 11 to 12"):
        list(NonFiniteRows("raise").watching([HostBatch(10, outputs)]))


def test_raising_comes_before_the_batch_is_passed_on():
    passed = []
    watching = NonFiniteRows("raise").watching(batches(rows_with([15]), [10, 10, 20]))
    with pytest.raises(ValueError, match='in 1 rows: 15.*on_nonfinite="ignore"'):
        passed.extend(batch.start for batch in watching)
    assert passed == [0]


def test_ignoring_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watching = NonFiniteRows("ignore").watching(batches(rows_with([1]), [40]))
        assert [batch.start for batch in watching] == [0]


def test_a_run_that_fails_warns_of_what_it_saw():
    def failing():
        yield HostBatch(0, rows_with([2]))
        raise KeyError("own")

    with (
        pytest.warns(UserWarning, match="in 1 rows: 2."),
        pytest.raises(KeyError, match="own"),
    ):
        list(NonFiniteRows("warn").watching(failing()))


def test_rows_that_could_not_be_read_do_not_count():
    missing = np.zeros(40, bool)
    missing[[3, 20]] = True

    marks = RowMarks(missing=missing)
    assert "in 1 rows: 4." in complaint(rows_with([3, 4, 20]), [10, 30], marks=marks)
    assert complaint(rows_with([3, 20]), [10, 30], marks=marks) is None
