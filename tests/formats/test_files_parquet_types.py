"""Parquet columns of common types, and values that no model can hold."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import Parquet
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.matching import match_inputs

BIG = 2**53 + 1
TWO = one([2], name="x")
TEXTS = ["é", "", "a\0b", "c"]
ENCODED = np.array([text.encode() for text in TEXTS], object)


def save(path, group=2, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def decimals(*texts, kind=None):
    values = [None if text is None else decimal.Decimal(text) for text in texts]
    return pa.array(values, kind or pa.decimal128(9, 2))


def column(values, kind):
    """A column of an Arrow type; skips if this pyarrow has no such type."""
    make = getattr(pa, kind, None)
    if make is None:
        pytest.skip(f"pyarrow {pa.__version__} has no {kind}")
    return pa.array(values, make())


@pytest.mark.parametrize(
    "values",
    [
        decimals("1.25", "-3.50", "100.00"),
        decimals("1.25", "-3.50", "100.00", kind=pa.decimal256(50, 20)),
        pa.array(np.array([1.25, -3.5, 100], np.float16)),
        pa.array([1.25, -3.5, 100]).dictionary_encode(),
    ],
)
def test_numbers_for_floats(values, tmp_path):
    path = save(tmp_path / "x.parquet", a=values)
    expected = np.array([1.25, -3.5, 100], np.float32)
    check_rows(as_source(path, input_spec=one([])), expected, [(2, 0), (2, 1)])


def test_decimals_become_the_nearest_floats(tmp_path):
    texts = ["0.1", "123456789012345678.901", "-0.30000000000000004", "1e-19"]
    values = decimals(*texts, kind=pa.decimal128(38, 19))
    path = save(tmp_path / "x.parquet", a=values)
    source = as_source(path, input_spec=one([], tf.float64))
    check_rows(source, np.array(texts, float), [(3, 0)])


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_strings_of_every_kind(kind, tmp_path):
    path = save(tmp_path / "x.parquet", a=column(TEXTS, kind))
    check_rows(as_source(path, input_spec=one([], tf.string)), ENCODED, [(3, 1)])


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_bytes_of_every_kind(kind, tmp_path):
    path = save(tmp_path / "x.parquet", a=column(ENCODED.tolist(), kind))
    check_rows(as_source(path, input_spec=one([], tf.string)), ENCODED, [(3, 1)])


@pytest.mark.parametrize("kind", ["list", "large_list", "list_view", "large_list_view"])
def test_lists_of_every_kind(kind, tmp_path):
    make = getattr(pa, {"list": "list_"}.get(kind, kind), None)
    if make is None:
        pytest.skip(f"pyarrow {pa.__version__} has no {kind}")
    rows = np.arange(24).reshape(4, 2, 3)
    lists = pa.array(rows.tolist(), make(make(pa.int16())))
    path = save(tmp_path / "x.parquet", a=lists)
    check_rows(as_source(path, input_spec=one([2, 3], tf.int32)), rows, [(3, 1)])
    expected = rows.reshape(4, 6, 1).astype(np.float32)
    check_rows(as_source(path, input_spec=one([6, 1])), expected, [(3, 1)])


def test_lists_of_decimals(tmp_path):
    values = [[decimal.Decimal("1.5"), decimal.Decimal("-2")]] * 3
    lists = pa.array(values, pa.list_(pa.decimal128(5, 1)))
    path = save(tmp_path / "x.parquet", a=lists)
    expected = np.array([[1.5, -2]] * 3, np.float32)
    check_rows(as_source(path, input_spec=TWO), expected, [(2, 0)])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pa.array([BIG, 2**62 + 1, -1]), tf.int64),
        (pa.array([2**64 - 1, 1], pa.uint64()), tf.uint64),
        (pa.array([0, 255], pa.uint64()), tf.uint8),
        (pa.array([3.0, -4.0]), tf.int32),
        (pa.array([True, False]), tf.int64),
        (decimals("3.00", "-4.00"), tf.int16),
        (decimals(str(BIG), "-1", kind=pa.decimal128(38, 0)), tf.int64),
        (pa.array([1, 0, 1]), tf.bool),
        (pa.array([1.0, 0.0]), tf.bool),
    ],
)
def test_integers_reach_the_model_as_they_are(values, dtype, tmp_path):
    spec = one([], dtype)
    source = as_source(save(tmp_path / "x.parquet", a=values), input_spec=spec)
    match_inputs(source.spec, spec)
    found = read(source, 2)
    assert np.can_cast(found.dtype, dtype.as_numpy_dtype)
    assert found.tolist() == [int(value) for value in values.to_pylist()]


@pytest.mark.parametrize(
    ("bad", "dtype", "message"),
    [
        (
            pa.array([2**63 + 5], pa.uint64()),
            tf.int64,
            "holds 9223372036854775813",
        ),
        (pa.array([3.7]), tf.int64, "holds 3.7 .*an integer that int64 holds"),
        (decimals("3.70"), tf.int64, "holds 3.70, expected an integer"),
        (decimals("300"), tf.int8, "holds 300 "),
        (pa.array([2]), tf.bool, "holds 2"),
        (pa.array([[300.0, 1.0]]), tf.uint8, "holds 300.0"),
    ],
)
def test_values_that_the_model_cannot_hold(bad, dtype, message, tmp_path):
    is_list = pa.types.is_list(bad.type)
    ones = pa.array([[1, 1]] * 3 if is_list else [True] * 3)
    good = ones.cast(pa.int8()).cast(bad.type) if not is_list else ones.cast(bad.type)
    path = save(tmp_path / "x.parquet", 4, a=pa.chunked_array([good, bad, good]))
    spec = one([2] if is_list else [], dtype)
    batches = as_source(path, input_spec=spec).batches(2)
    assert [next(batches).num_rows, next(batches).num_rows] == [2, 1]
    with pytest.raises(ValueError, match=f"{path}, column 'a', row 3 {message}"):
        next(batches)


def test_columns_of_several_types_are_stacked_exactly(tmp_path):
    path = tmp_path / "x.parquet"
    save(path, a=[BIG, 5], b=pa.array([BIG + 2, 7], pa.uint64()), c=[True, False])
    expected = np.array([[BIG, BIG + 2, 1], [5, 7, 0]])
    spec = one([3], tf.int64, "x")
    check_rows(as_source(path, input_spec=spec), expected, [(1, 0)])
    check_rows(Parquet(path, ["a", "b", "c"]).open_rows(None), expected, [(1, 0)])
    save(path, a=[True, False], b=[1.5, 2.5])
    expected = np.array([[1, 1.5], [0, 2.5]], np.float32)
    check_rows(as_source(path, input_spec=TWO), expected, [(1, 0)])
    save(path, a=[1], b=pa.array([2**63], pa.uint64()))
    with pytest.raises(ValueError, match="column 'b', row 0 holds 9223372036854775808"):
        read(Parquet(path, ["a", "b"]).open_rows(None), 1)


@pytest.mark.parametrize("dtype", [tf.float32, tf.int64])
def test_files_of_several_types(dtype, tmp_path):
    save(tmp_path / "0.parquet", a=pa.array([1, 2], pa.int16()), b=[1.0, 2.0])
    save(tmp_path / "1.parquet", a=pa.array([3, 4], pa.int64()), b=decimals("3", "4"))
    save(tmp_path / "2.parquet", a=[True], b=pa.array([5], pa.uint8()))
    save(tmp_path / "3.parquet", a=pa.array([], pa.null()), b=pa.array([], pa.null()))
    expected = np.array([[1, 1], [2, 2], [3, 3], [4, 4], [1, 5]], dtype.as_numpy_dtype)
    source = as_source(tmp_path, input_spec=one([2], dtype, "x"))
    check_rows(source, expected, [(3, 0), (3, 3)])


def test_lists_of_several_types(tmp_path):
    fixed = pa.array([[5, 6]], pa.list_(pa.int8(), 2))
    save(tmp_path / "0.parquet", a=[[1.0, 2.0], [3.0, 4.0]])
    save(tmp_path / "1.parquet", a=fixed)
    expected = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    check_rows(as_source(tmp_path, input_spec=TWO), expected, [(2, 0)])
    save(tmp_path / "2.parquet", a=pa.array([[7, 8, 9]], pa.list_(pa.int8(), 3)))
    with pytest.raises(ValueError, match="2.parquet does not have .*expected list<"):
        as_source(tmp_path, input_spec=TWO)


def test_nulls_as_nan(tmp_path):
    columns = {
        "a": pa.array([1, None, 3]),
        "b": decimals(None, "2.5", "3"),
        "c": pa.nulls(3),
        "d": pa.array([True, False, None]),
    }
    path = save(tmp_path / "x.parquet", **columns)
    nan = np.nan
    expected = [[1, nan, nan, 1], [nan, 2.5, nan, 0], [3, 3, nan, nan]]
    source = Parquet(path, missing_as_nan=True).open_rows(one([4], name="x"))
    check_rows(source, np.array(expected, np.float32), [(2, 0), (2, 1)])
    assert source.identity != Parquet(path).open_rows(one([4], name="x")).identity
    with pytest.raises(
        ValueError, match="column 'a', row 1 .*pass missing_as_nan=True"
    ):
        read(Parquet(path).open_rows(one([])), 2)
    with pytest.raises(
        ValueError, match="column 'a', row 1 holds a null, expected a va"
    ):
        read(Parquet(path, missing_as_nan=True).open_rows(one([], tf.int64)), 2)


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.list_(pa.float32(), 2)])
def test_nulls_in_lists_as_nan(kind, tmp_path):
    values = pa.array([None, [1, None], None, [None, 4]], kind)
    path = save(tmp_path / "x.parquet", a=values)
    nan = np.nan
    expected = np.array([[nan, nan], [1, nan], [nan, nan], [nan, 4]], np.float32)
    source = Parquet(path, missing_as_nan=True).open_rows(TWO)
    check_rows(source, expected, [(3, 0), (1, 1)])
    with pytest.raises(ValueError, match="row 0 holds a null, expected a list of 2"):
        read(Parquet(path).open_rows(TWO), 2)


def test_nulls_in_lists_of_lists_as_nan(tmp_path):
    path = save(
        tmp_path / "x.parquet", a=[[[1.0, 2.0], None], None, [None, [3.0, 4.0]]]
    )
    nan = np.nan
    pairs = [[[1, 2], [nan, nan]], [[nan, nan]] * 2, [[nan, nan], [3, 4]]]
    source = Parquet(path, missing_as_nan=True).open_rows(one([2, 2], name="x"))
    check_rows(source, np.array(pairs, np.float32), [(2, 0)])


def test_nan_that_pandas_wrote_is_not_null(tmp_path):
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame(
        {"a": [1.0, np.nan, 3.0], "b": pd.array([1, None, 3], "Int64")}
    )
    frame.to_parquet(path)
    expected = np.array([1, np.nan, 3], np.float32)
    check_rows(as_source(path, input_spec=one([])), expected, [(2, 0)])
    for spec, name in ((one([], name="b"), "b"), (one([], tf.int64), "a")):
        with pytest.raises(ValueError, match=f"column '{name}', row 1 holds a null"):
            read(as_source(path, input_spec=spec), 2)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([datetime.date(2024, 1, 1)]), r"date32\[day\]"),
        (pa.array([datetime.datetime(2024, 1, 1)]), r"timestamp\[us\]"),
        (pa.array([datetime.timedelta(1)]), r"duration\[us\]"),
        (pa.array([datetime.time(1)]), r"time64\[us\]"),
        (pa.array([{"x": 1}]), "struct<x: int64>"),
        (pa.array([[datetime.date(2024, 1, 1)]]), r"list<\w+: date32\[day\]>"),
    ],
)
def test_types_that_are_not_numbers(values, shown, tmp_path):
    path = save(tmp_path / "x.parquet", a=values)
    message = rf"{path}, columns a \({shown}\): expected numbers, bools, strings or"
    with pytest.raises(ValueError, match=message):
        as_source(path, input_spec=one([], tf.int64))


@pytest.mark.parametrize("index", [None, "customer", ("customer", "day")])
def test_an_index_of_pandas_is_not_taken_unasked(index, tmp_path):
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"a": [1.0, 0, 2, 0, 0, 3], "b": [4.0, 0, 5, 0, 0, 6]})
    names = [index] if isinstance(index, str) else list(index or [])
    if names:
        frame = frame.assign(**{name: [9, 1, 5, 2, 3, 8] for name in names})
        frame = frame.set_index(names)
    frame[frame["a"] > 0].to_parquet(path)
    expected = np.array([[1, 4], [2, 5], [3, 6]], np.float32)
    check_rows(as_source(path, input_spec=TWO), expected, [(1, 0)])
    name = names[0] if names else "__index_level_0__"
    message = f"2 columns of numbers, expected 3: .*by name alone: {name}"
    with pytest.raises(ValueError, match=message):
        as_source(path, input_spec=one([3], name="x"))
    source = Parquet(path, ["a", "b", name]).open_rows(one([3]))
    assert read(source, 2).shape == (3, 3)


def test_an_index_in_some_files_only(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [5.0, 6, 7, 8]})
    frame.to_parquet(tmp_path / "0.parquet")
    frame[frame["a"] != 2].to_parquet(tmp_path / "1.parquet")
    rows = frame.to_numpy(np.float32)
    expected = np.concatenate([rows, rows[[0, 2, 3]]])
    check_rows(as_source(tmp_path, input_spec=TWO), expected, [(2, 0)])
    with pytest.raises(ValueError, match="there is no '__index_level_0__'"):
        Parquet(tmp_path, "__index_level_0__").open_rows(one([]))


@pytest.mark.parametrize(
    "noted",
    [
        *(b"", b"\xff", b"[", b"[]", b'{"index_columns": 3, "columns": [3, {}]}'),
        b'{"index_columns": [{"kind": "range"}, 3, "none"]}',
        b"[" * 100_000,
    ],
)
def test_invalid_notes_of_pandas(noted, tmp_path):
    content = pa.table({"a": [1.0, 2.0]}).replace_schema_metadata({b"pandas": noted})
    pq.write_table(content, tmp_path / "x.parquet")
    source = as_source(tmp_path / "x.parquet", input_spec=one([]))
    check_rows(source, np.array([1, 2], np.float32), [(1, 0)])


def test_a_file_without_row_groups(tmp_path):
    save(tmp_path / "0.parquet", a=[1.0, 2.0])
    with pq.ParquetWriter(tmp_path / "1.parquet", pa.schema({"a": pa.float64()})):
        pass
    save(tmp_path / "2.parquet", a=[3.0])
    expected = np.array([1, 2, 3], np.float32)
    check_rows(as_source(tmp_path, input_spec=one([])), expected, [(2, 0), (2, 2)])
    alone = as_source(tmp_path / "1.parquet", input_spec=one([]))
    assert alone.num_rows == 0 and list(alone.batches(2)) == []
