"""pandas and polars: chunks, strings, missing values, mixed columns."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import tensorflow as tf
from reading import read, rows

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.row_errors import BadRow

N = 7


def _frame(**columns):
    return pd.DataFrame(columns or {"a": np.arange(N), "b": np.arange(N) / 2})


def test_a_frame_has_two_axes():
    source = as_source(_frame())
    assert source.num_rows == N
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source, 3), _frame().to_numpy(np.float32))


def test_a_series_has_one_axis():
    source = as_source(_frame()["a"])
    assert source.spec == tf.TensorSpec([None], tf.int64)
    np.testing.assert_array_equal(rows(source, 3), np.arange(N))


def test_a_dict_of_columns():
    frame = _frame(age=np.arange(N), name=list("abcdefg"))
    source = as_source(dict(frame))
    assert source.spec == {
        "age": tf.TensorSpec([None], tf.int64),
        "name": tf.TensorSpec([None], tf.string),
    }
    assert read(source, 4)[1].inputs["name"].tolist() == [b"e", b"f", b"g"]


def test_rows_are_those_of_the_position_not_of_the_index():
    frame = _frame().sort_values("a", ascending=False)
    np.testing.assert_array_equal(rows(as_source(frame["a"]), 3), np.arange(N)[::-1])


@pytest.mark.parametrize("dtype", [object, "str", "string"])
def test_strings(dtype):
    frame = _frame(a=list("abc"), b=["x", "ÿ", ""]).astype(dtype)
    source = as_source(frame)
    assert source.spec == tf.TensorSpec([None, 2], tf.string)
    assert rows(source, 2).tolist() == [[b"a", b"x"], [b"b", "ÿ".encode()], [b"c", b""]]


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [
        ({"a": np.int8([1]), "b": np.int16([2])}, tf.int16),
        ({"a": [True], "b": [False]}, tf.bool),
        ({"a": [7], "b": [True]}, tf.int64),
        ({"a": [2**53 + 1], "b": pd.array([True], dtype="boolean")}, tf.int64),
        ({"a": [7], "b": [0.5], "c": [True]}, tf.float32),
        ({"a": pd.array([1], dtype="Int64"), "b": [2]}, tf.int64),
        ({"a": pd.array([1.5], dtype="Float64"), "b": [2]}, tf.float32),
        ({"a": pd.array([True], dtype="boolean")}, tf.bool),
        ({"a": pd.Categorical([1])}, tf.int64),
    ],
)
def test_common_dtypes(columns, dtype):
    frame = pd.DataFrame(columns)
    assert as_source(frame).spec.dtype == dtype
    np.testing.assert_array_equal(rows(as_source(frame))[0], frame.iloc[0].tolist())


def test_categories_are_read_as_their_values():
    frame = pd.DataFrame({"c": pd.Categorical(["v", "u"]), "s": ["x", "y"]})
    expected = [[b"v", b"x"], [b"u", b"y"]]
    np.testing.assert_array_equal(rows(as_source(frame)), np.array(expected, object))
    np.testing.assert_array_equal(rows(as_source(frame["c"])), [b"v", b"u"])


def test_nan_stays():
    assert np.isnan(rows(as_source(_frame(a=[1.0, np.nan])))[1, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": [1, 2], "s": ["x", "y"], "t": ["u", "v"]},
            "x mixes columns of numbers with columns of strings.*: column 's', column "
            r"'t'. Use x.astype\('float32'\), or a dict of columns",
        ),
        ({"s": ["x", 1]}, r"x, column 's' has dtype=object .*only strings"),
        ({"s": pd.Series(["x", None], dtype=object)}, "column 's' .*missing values"),
        ({"s": pd.Series(["x", None], dtype="string")}, "column 's' .*missing values"),
        ({"i": pd.array([1, None], dtype="Int64")}, r"'i' \(Int64\) has missing val"),
        ({"d": pd.to_datetime(["2020-01-01"])}, r"'d' has dtype=datetime64.*drop it"),
        ({"c": pd.Categorical(["u", 1])}, r"'c' has dtype=category .*\.astype\(str\)"),
        ({"c": pd.Categorical(["u", None])}, "column 'c' .*missing values"),
    ],
)
def test_columns_that_would_become_objects(columns, message):
    with pytest.raises(ValueError, match=message):
        as_source(pd.DataFrame(columns))


def test_columns_with_the_same_name():
    twice = pd.DataFrame([[1, 2.5]], columns=["a", "a"])
    np.testing.assert_array_equal(rows(as_source(twice)), [[1, 2.5]])
    mixed = pd.DataFrame([["1", 2.5]], columns=["a", "a"])
    with pytest.raises(ValueError, match="x mixes columns of numbers with columns"):
        as_source(mixed)


def test_a_frame_without_columns():
    with pytest.raises(ValueError, match="x is a DataFrame without columns"):
        as_source(pd.DataFrame(index=range(3)))


def test_pandas_is_not_imported_for_other_inputs():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import numpy as np\n"
        "from keras_mgpu_strategy.inputs import as_source\n"
        "print(as_source({'a': np.ones((3, 2))}).num_rows)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "3", result.stderr


def test_polars():
    frame = pl.DataFrame({"a": np.arange(N), "b": np.arange(N) / 2})
    source = as_source(frame)
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source, 3), frame.to_numpy())
    series = as_source({"a": frame["a"], "text": pl.Series(list("abcdefg"))})
    (batch,) = read(series, 20)
    assert batch.inputs["a"].dtype == np.int64
    assert batch.inputs["text"].tolist() == [letter.encode() for letter in "abcdefg"]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.String, pl.Boolean])
def test_a_null_of_polars_is_an_error_and_not_nan(dtype):
    values = pl.Series("b", [1, 0, 1, 0, 1, None, 1]).cast(dtype)
    for x in (values, pl.DataFrame([values.rename("a").fill_null(values[0]), values])):
        batches = as_source(x).batches(4)
        assert next(batches).num_rows == 4
        message = "^x, column 'b', row 5 holds a null, expected a value. Fill it in"
        with pytest.raises(BadRow, match=message):
            next(batches)


@pytest.mark.parametrize("declared", [tf.int64, tf.float32])
def test_integers_next_to_floats(declared):
    """pandas makes both floats, which skip integers starting at 2**53."""
    frame = pd.DataFrame({"a": [1, 2**53 + 1], "b": [1.0, 2.0]})
    source = as_source(frame, input_spec=tf.TensorSpec([None, 2], declared))
    if declared == tf.float32:
        np.testing.assert_array_equal(rows(source), frame.to_numpy(np.float32))
        return
    with pytest.raises(BadRow, match="x, row 1 holds 9007199254740992.0 .*Pass integ"):
        rows(source)
