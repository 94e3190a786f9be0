"""Columns in memory: one type for the whole, whatever part of it is read."""

import datetime
import decimal

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import tensorflow as tf

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.arrow_values import bytes_of
from keras_mgpu_strategy.sources.kept_columns import column_of

TIMES = ["2024-01-02T03:04:05", "NaT", "NaT", "2024-01-02"]
DAY = datetime.date(2024, 1, 2)
WORDS = ["b", None, None, "a"]
TEXT, LONG_TEXT = pa.string(), pa.large_string()
COLUMNS = {
    "pandas_text": (pd.Series(WORDS, dtype=object), TEXT, WORDS),
    "pandas_float": (pd.Series([1.5, np.nan, np.nan, 2]), pa.float64(), None),
    "pandas_int": (pd.Series([1, None, None, 2], dtype="Int8"), pa.int8(), None),
    "pandas_time": (
        pd.Series(pd.to_datetime(TIMES, format="ISO8601")).dt.as_unit("ms"),
        pa.timestamp("ms"),
        None,
    ),
    "pandas_category": (pd.Series(WORDS, dtype="category"), LONG_TEXT, WORDS),
    "pandas_numbers_category": (
        pd.Series([3, None, None, 1], dtype="category"),
        pa.int64(),
        [3, None, None, 1],
    ),
    "pandas_decimal": (
        pd.Series([decimal.Decimal("1.5"), None, None, decimal.Decimal("20.25")]),
        pa.decimal128(4, 2),
        None,
    ),
    "pandas_date": (pd.Series([DAY, None, None, DAY]), pa.date32(), None),
    "pandas_arrow": (
        pd.Series(
            pa.array(WORDS).dictionary_encode(),
            dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), TEXT)),
        ),
        TEXT,
        WORDS,
    ),
    "polars_text": (pl.Series(WORDS), LONG_TEXT, WORDS),
    "polars_category": (pl.Series(WORDS, dtype=pl.Categorical), LONG_TEXT, WORDS),
    "polars_zone": (
        pl.Series(
            [datetime.datetime(2024, 1, 2), None, None, None]
        ).dt.replace_time_zone("Asia/Tokyo"),
        pa.timestamp("us", "Asia/Tokyo"),
        None,
    ),
    "numpy": (np.array([1.5, np.nan, 3, 4]), pa.float64(), None),
    "numpy_time": (np.array(TIMES, "datetime64[s]"), pa.timestamp("s"), None),
    "numpy_text": (np.array(["a", "bb", "", "c"]), TEXT, ["a", "bb", "", "c"]),
    "numpy_bytes": (np.array([b"a", b"\xff"] * 2), pa.binary(), [b"a", b"\xff"] * 2),
    "numpy_big_endian": (np.arange(4).astype(">i2"), pa.int16(), [0, 1, 2, 3]),
    "numpy_objects": (np.array(WORDS, object), TEXT, WORDS),
    "list": (WORDS, TEXT, WORDS),
    "tensor": (tf.range(4), pa.int32(), [0, 1, 2, 3]),
    "text_tensor": (
        tf.constant(["a", "\u00e4", "", "b"]),
        TEXT,
        ["a", "\u00e4", "", "b"],
    ),
    "arrow": (pa.array(WORDS), TEXT, WORDS),
    "arrow_chunks": (pa.chunked_array([WORDS[:1], WORDS[1:]]), TEXT, WORDS),
    "arrow_dictionary": (pa.array(WORDS).dictionary_encode(), TEXT, WORDS),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_every_part_of_a_column_has_its_type(case):
    values, type_, expected = COLUMNS[case]
    column = column_of(values, "x")
    assert (column.num_rows, column.arrow_type) == (4, type_)
    parts = [
        column.read(start, stop) for start, stop in ((0, 1), (1, 3), (3, 4), (4, 4))
    ]
    assert {part.type for part in parts} == {type_}
    whole = pa.concat_arrays(parts)
    assert whole.equals(column.read(0, 4)) or case == "numpy"  # NaN is not NaN
    if expected is not None:
        assert whole.to_pylist() == expected
    assert parts[1].null_count == 2 or expected not in (None, WORDS) or case == "numpy"


def test_a_nan_of_an_array_is_a_number_and_of_a_frame_is_missing():
    numbers = np.array([1, np.nan])
    assert column_of(numbers, "x").read(0, 2).null_count == 0
    assert column_of(pd.Series(numbers), "x").read(0, 2).null_count == 1


def test_a_stored_array_is_read_by_rows(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        names = file.create_dataset("names", data=["a", "\u00e4", "b"])
        numbers = file.create_dataset("numbers", data=np.arange(3, dtype=np.uint8))
        assert column_of(names, "x").read(1, 3).to_pylist() == ["\u00e4", "b"]
        assert column_of(numbers, "x").read(1, 3).equals(pa.array([1, 2], pa.uint8()))


def test_entries_of_an_open_archive(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((3, 2)), id=np.arange(3))
    with np.load(tmp_path / "x.npz") as archive:
        source = as_source(archive, keep=["id"])
    assert list(source.spec) == ["x"]
    assert source.marks(1, 3).kept.to_pydict() == {"id": [1, 2]}


MIXED = {
    "text and number": ["a"] * 70_000 + [1],
    "number and text": [1] * 70_000 + ["a"],
    "bool": [1, True],
    "dates": [DAY, datetime.datetime(2024, 1, 2, 3)],
    "large": [1, 2**70],
    "inexact": [2**53 + 1, 0.5],
    "categories": pd.Series([1, "a"], dtype=object).astype("category"),
}


@pytest.mark.parametrize("case", MIXED)
def test_values_of_several_kinds_are_refused_at_once(case):
    with pytest.raises(ValueError, match="'id' cannot be kept: .*one kind. Convert it"):
        column_of(MIXED[case], "keep: 'id'")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.zeros((3, 2)), ValueError, r"'id' has shape \(3, 2\), expected one value"),
        (np.float64(3), ValueError, r"has shape \(\), expected one value a row"),
        (np.zeros(3, complex), ValueError, "'id' cannot be kept"),
        ({"a": 1}, TypeError, "'id' is dict, expected an array, a list or a series"),
        ("text", TypeError, "'id' is str, expected an array"),
    ],
)
def test_other_objects_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        column_of(values, "keep: 'id'")


def test_equal_values_have_equal_bytes():
    table = pa.table({"a": [1, None, 3, 4], "b": WORDS, "c": [True, None, True, False]})
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    longer = pa.concat_tables([table.slice(2), table, table])
    # Values under a null do not count.
    mask = np.array([False, True, False, False])
    other = table.set_column(0, "a", pa.array([1, 7, 3, 4], mask=mask))
    expected = bytes_of(table).tobytes()
    for same in (chunks, longer.slice(2, 4), other):
        assert bytes_of(same).tobytes() == expected
    for column, values in (("a", [1, None, 3, 5]), ("b", ["b", None, "", "a"])):
        place = table.column_names.index(column)
        changed = table.set_column(place, column, pa.array(values))
        assert bytes_of(changed).tobytes() != expected


def test_a_batch_without_rows_has_the_types_of_the_first():
    def batches():
        for names in (["a", "b"], [], ["c"]):
            yield {"x": np.ones((len(names), 2)), "id": np.array(names, object)}

    source = as_source(batches(), keep=("id",))
    kept = [source.marks(b.start, b.start + b.num_rows).kept for b in source.batches(2)]
    assert pa.concat_tables(kept)["id"].to_pylist() == ["a", "b", "c"]
