"""The one rule by which rows get the dtype that a model declares."""

import decimal
import pickle

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from reading import read, rows

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.casting import Cast, cast_for
from keras_mgpu_strategy.sources.row_errors import BadRow, failing
from keras_mgpu_strategy.types import Undeclared

BFLOAT16 = ml_dtypes.bfloat16


def one(dtype, shape=()):
    return tf.TensorSpec([None, *shape], dtype, "x")


def given(values, dtype, declared):
    """The rows of an array as given to a model that declares a dtype."""
    source = as_source(np.array(values, dtype), input_spec=one(declared))
    found = rows(source, 2)
    assert found.dtype == np.dtype(source.spec.dtype.as_numpy_dtype)
    return found


@pytest.mark.parametrize(
    ("values", "dtype", "declared", "expected"),
    [
        ([1_700_000_123.25], "f8", tf.float64, "f8"),
        ([1_700_000_123.25], ">f8", tf.float64, "f8"),
        ([0.1], "f4", tf.float64, "f8"),
        ([0.1, np.inf, np.nan, 1e-320], "f8", tf.float32, "f4"),
        ([0.1], np.longdouble, tf.float64, "f8"),
        ([0.1, np.inf], "f8", tf.float16, "f2"),
        ([0.1], "f4", tf.bfloat16, BFLOAT16),
        ([0.1], BFLOAT16, tf.float64, "f8"),
        ([0.1], "f8", tf.complex64, "f4"),
        ([0.1], "f8", tf.complex128, "f8"),
        ([1 + 1j], "c16", tf.complex64, "c8"),
        # The model itself converts these, on its device.
        ([0, 255], "u1", tf.float32, "u1"),
        ([2**24 + 1], "i8", tf.float32, "i8"),
        ([2**24 + 1], "i4", tf.float64, "i4"),
        ([True], "?", tf.float16, "?"),
        ([7], "i1", tf.float16, "i1"),
        ([7], "u1", tf.int64, "u1"),
        ([True], "?", tf.int32, "?"),
        # It would change these.
        ([60000], "i8", tf.float16, "f2"),
        ([2**31 - 1, -(2**31)], "i8", tf.int32, "i4"),
        ([255], "i8", tf.uint8, "u1"),
        ([2**63 - 1], "u8", tf.int64, "i8"),
        ([0], "i8", tf.uint64, "u8"),
        ([-3.0, 2**24 - 1], "f4", tf.int32, "i4"),
        ([2**53 - 1], "f8", tf.int64, "i8"),
        ([2047], "f2", tf.int32, "i4"),
        ([255], BFLOAT16, tf.uint8, "u1"),
        ([0, 1], "i8", tf.bool, "?"),
        ([0, 1], "f4", tf.bool, "?"),
    ],
)
def test_values_that_are_kept(values, dtype, declared, expected):
    x = np.array(values, dtype)
    found = given(x, x.dtype, declared)
    assert found.dtype == np.dtype(expected)
    np.testing.assert_array_equal(found, x.astype(expected))


@pytest.mark.parametrize(
    ("values", "dtype", "declared", "message"),
    [
        ([1, 2.5], "f4", tf.int32, "row 1 holds 2.5 .float32., expected an integer"),
        (
            [1, 2, np.nan],
            "f8",
            tf.int64,
            "row 2 holds nan .float64., expected an int",
        ),
        ([np.inf], "f8", tf.int32, "row 0 holds inf .*that int32 holds"),
        (
            [2**24],
            "f4",
            tf.int32,
            "expected a number below 16777216: from there on, fl",
        ),
        ([2.0**53], "f8", tf.int64, "expected a number below 9007199254740992: from"),
        ([2**11], "f2", tf.int32, "below 2048: from there on, float16 .*Pass integers"),
        ([256], BFLOAT16, tf.int32, "below 256: from there on, bfloat16 does not hold"),
        ([3e9], "f8", tf.int32, "holds 3000000000.0 .*that int32 holds"),
        ([-1], "f8", tf.uint8, "holds -1.0 .*that uint8 holds"),
        (
            [1, 2**31],
            "i8",
            tf.int32,
            "row 1 holds 2147483648 .int64., expected an integer",
        ),
        (
            [-1],
            "i8",
            tf.uint64,
            "holds -1 .int64., expected an integer that uint64",
        ),
        ([2**63], "u8", tf.int64, "holds 9223372036854775808 .*that int64 holds"),
        ([300], "i2", tf.uint8, "holds 300 .int16., expected .* uint8 holds"),
        ([0, 2], "i8", tf.bool, "row 1 holds 2 .*expected True or False, 1 or 0. Comp"),
        ([np.nan], "f4", tf.bool, "holds nan .*expected True or False"),
        ([1, 1e300], "f8", tf.float32, "row 1 holds 1e.300 .*in the range of float32"),
        ([70000.0], "f4", tf.float16, "holds 70000.0 .*in the range of float16"),
        ([70000], "i4", tf.float16, "holds 70000 .int32.*in the range of float16"),
        ([3.4e38], "f4", tf.bfloat16, "in the range of bfloat16"),
        ([1e300j], "c16", tf.complex64, "in the range of complex64"),
    ],
)
def test_values_that_would_change(values, dtype, declared, message):
    with pytest.raises(BadRow, match=f"^x, {message}|^x, row 0 .*{message}"):
        given(values, dtype, declared)


def test_a_float_is_rounded_once():
    # Via float32 it would lie midway between two float16 values.
    x = np.array([1 + 2**-11 + 2**-40])
    assert given(x, "f8", tf.float16)[0] == 1 + 2**-10
    assert x.astype(np.float32).astype(np.float16)[0] == 1


def test_the_row_of_a_wrong_value_is_the_users():
    x = np.zeros((9, 2, 2))
    x[7, 1, 0] = 0.5
    batches = as_source({"a": x}, input_spec={"a": one(tf.int32, (2, 2))}).batches(4)
    assert next(batches).num_rows == 4
    message = r"^x\['a'\], row 7 holds 0.5 \(float64\), expected an integer that"
    with pytest.raises(BadRow, match=message) as caught:
        next(batches)
    assert caught.value.index == 3


def test_a_model_that_declares_nothing():
    x = np.array([1_700_000_123.25])
    assert rows(as_source(x)).dtype == np.float32
    wide = as_source(x, input_spec=Undeclared(tf.float64))
    np.testing.assert_array_equal(rows(wide), x)
    assert rows(as_source(np.arange(3), input_spec=Undeclared(tf.float64))).dtype == int


class Later:
    """An array-like whose rows from the third on have another dtype than the first."""

    shape = (6,)
    dtype = np.dtype(np.int64)

    def __init__(self, later, first="i8"):
        self._rows = [1, 2, 3, *later]
        self._first = first

    def __getitem__(self, rows):
        chunk = self._rows[rows]
        return np.array(chunk) if rows.stop > 3 else np.array(chunk, self._first)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (
            [4, 4.5, 6],
            r"row 4 holds 4.5 \(float64\), expected an integer that int64",
        ),
        ([4, 5, np.nan], "row 5 holds nan"),
        (["7", "8", "9"], r"row 3 holds '7' \(<U1\), expected int64. Convert it first"),
        ([4 + 1j, 5, 6], r"row 3 holds \(4\+1j\) \(complex128\), expected int64"),
        (
            [4, None, 6],
            r"row 4 holds None \(object\), expected an integer that int64",
        ),
        ([b"7", b"8", b"9"], r"row 3 holds b'7' \(.S1\), expected int64"),
    ],
)
def test_a_chunk_of_another_dtype_that_cannot_be_kept(later, message):
    for spec in (None, one(tf.int64), one(tf.float32), one(tf.float64)):
        batches = as_source(Later(later), input_spec=spec).batches(3)
        assert next(batches).inputs.tolist() == [1, 2, 3]
        with pytest.raises(BadRow, match=f"^x, {message}"):
            next(batches)


@pytest.mark.parametrize(
    "later",
    [[4.0, 5.0, 6.0], [4, decimal.Decimal(5), 6], np.array([4, 5, 6], "u8").tolist()],
)
def test_a_chunk_of_another_dtype_that_holds_the_same_values(later):
    source = as_source(Later(later), input_spec=one(tf.int64))
    np.testing.assert_array_equal(rows(source, 3), np.arange(1, 7))


def test_without_a_promised_dtype_rows_come_as_the_model_takes_them():
    untyped = Later([300, 301, 302], first="u1")
    untyped.dtype = None
    source = as_source(untyped, input_spec=one(tf.float32))
    assert source.spec.dtype == tf.float32
    np.testing.assert_array_equal(rows(source, 3), [1, 2, 3, 300, 301, 302])
    with pytest.raises(BadRow, match="row 3 holds 300 .int64.* that uint8 holds"):
        rows(as_source(untyped), 3)


def test_masked_slices():
    class Masked:
        shape = (6,)

        def __getitem__(self, rows):
            return np.ma.masked_equal(np.arange(6.0)[rows], 4)

    batches = as_source(Masked()).batches(3)
    assert next(batches).inputs.tolist() == [0, 1, 2]
    with pytest.raises(BadRow, match="^x, row 4 has a masked value.*x.filled"):
        next(batches)


def test_objects_that_are_strings():
    x = np.array(["a", "é", b"c"], dtype=object)
    source = as_source({"a": x, "n": np.arange(3)})
    assert source.spec["a"].dtype == tf.string
    (batch,) = read(source, 3)
    assert batch.inputs["a"].tolist() == [b"a", "é".encode(), b"c"]
    assert as_source(np.array([], dtype=object)).spec.dtype == tf.string
    batches = as_source(np.array(["a", "b", None], dtype=object)).batches(2)
    assert next(batches).num_rows == 2
    message = r"^x, row 2 holds None \(object\), expected str or bytes. Replace missing"
    with pytest.raises(BadRow, match=message):
        next(batches)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (2**63 - 1, tf.int64, 2**63 - 1),
        (decimal.Decimal(2**53 + 1), tf.int64, 2**53 + 1),
        (decimal.Decimal("0.1"), tf.float64, 0.1),
        (10**30, tf.float64, 1e30),
        (True, tf.bool, True),
        (np.float32(1.5), tf.float64, 1.5),
    ],
)
def test_python_numbers(value, dtype, expected):
    column = np.array([[value]], dtype=object)
    found = Cast(dtype).convert(column, failing("x", 0))
    assert found.dtype == dtype.as_numpy_dtype and found.tolist() == [[expected]]


@pytest.mark.parametrize(
    "value", [2**63, 10**400, decimal.Decimal("2.5"), np.float32(2**24), 1j, "1", None]
)
def test_objects_that_are_not_integers(value):
    with pytest.raises(
        BadRow, match="x, row 1 holds .*object.*an integer that int64 holds"
    ):
        Cast(tf.int64).convert(np.array([1, value], dtype=object), failing("x", 0))


def test_an_error_in_a_row_names_it_as_the_reader_does():
    cast = cast_for(np.dtype(np.int64), "x", tf.int8)
    with pytest.raises(BadRow, match="^t.csv, column 'a', row 71 holds 128") as caught:
        cast.convert(np.array([1, 128]), failing("t.csv, column 'a'", 70))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.index) == (str(caught.value), 1)
