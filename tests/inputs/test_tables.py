"""Arrow tables in memory, and Hugging Face data sets."""

import sys
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from reading import read, rows

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.types import Undeclared

A = tf.TensorSpec([None], tf.int64, "a")
B = tf.TensorSpec([None, 2], tf.float64, "b")
WIDE = np.arange(46.0).reshape(23, 2) + 1.7e9
TABLE = pa.table({"b": WIDE.tolist(), "a": range(23), "text": ["t"] * 23})
CHUNKED = pa.concat_tables([TABLE.slice(0, 5), TABLE.slice(5, 0), TABLE.slice(5)])


@pytest.fixture
def data_set(monkeypatch):
    """Makes a `datasets.Dataset`, or a stand-in for the parts we use."""
    try:
        import datasets
    except ImportError:
        return _stand_in(monkeypatch)
    return lambda table: datasets.Dataset(table)


def _stand_in(monkeypatch):
    """As in datasets 2 to 5. Installing the package changes other packages."""

    class Dataset:
        def __init__(self, table, kind=None, columns=None):
            self._table = table
            self.shape = table.shape
            self.column_names = table.column_names
            self.format = {"type": kind, "columns": columns or table.column_names}
            self.features = types.SimpleNamespace(arrow_schema=table.schema)

        def __len__(self):
            return self._table.num_rows

        def __getitem__(self, rows):
            start, stop, _ = rows.indices(len(self))
            found = self._table.slice(start, stop - start)
            return found if self.format["type"] == "arrow" else found.to_pydict()

        def select_columns(self, names):
            return Dataset(self._table.select(names), self.format["type"])

        def with_format(self, kind, columns=None):
            return Dataset(self._table, kind, columns)

        def with_transform(self, function):
            return Dataset(self._table, "custom")

        def select(self, indices):
            return Dataset(self._table.take(indices), self.format["type"])

    Dataset.__module__ = "datasets.arrow_dataset"
    monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
    return Dataset


@pytest.fixture(params=["table", "chunked", "record batch", "data set"])
def table(request, data_set):
    return {
        "table": TABLE,
        "chunked": CHUNKED,
        "record batch": TABLE.to_batches()[0],
        "data set": data_set(CHUNKED),
    }[request.param]


def test_columns_by_the_names_of_the_inputs(table):
    source = as_source(table, input_spec=[A, B])
    assert source.num_rows == 23
    for batch_size, start in ((1, 0), (7, 0), (7, 4), (30, 4), (7, 23)):
        batches = read(source, batch_size, start)
        for index, theirs in enumerate((np.arange(23), WIDE)):
            mine = [theirs[:0], *(batch.inputs[index] for batch in batches)]
            np.testing.assert_array_equal(np.concatenate(mine), theirs[start:])


def test_one_input(table):
    np.testing.assert_array_equal(rows(as_source(table, input_spec=B)), WIDE)
    text = tf.TensorSpec([None], tf.string, "other")
    assert rows(as_source(table, input_spec=text)).tolist() == [b"t"] * 23
    lists = tf.TensorSpec([None, 2], tf.float32, "other")
    found = rows(as_source(table, input_spec=lists))
    np.testing.assert_array_equal(found, WIDE.astype(np.float32))


def test_all_columns_of_numbers(data_set):
    columns = pa.table({"u": WIDE[:, 0], "v": WIDE[:, 1]})
    for x in (columns, data_set(columns)):
        for spec in (B, Undeclared(tf.float64)):
            np.testing.assert_array_equal(rows(as_source(x, input_spec=spec)), WIDE)
        assert rows(as_source(x)).dtype == np.float32
    one = as_source(columns.select(["u"]), input_spec=Undeclared(tf.float64))
    np.testing.assert_array_equal(rows(one), WIDE[:, 0])


def test_steps(table):
    source = as_source(table, steps=2, batch_size=4, input_spec=A)
    assert rows(source, 3).tolist() == list(range(8))


def test_a_selection_of_a_data_set_is_respected(data_set):
    picked = data_set(TABLE).select([20, 3, 7])
    assert rows(as_source(picked, input_spec=A)).tolist() == [20, 3, 7]
    narrow = data_set(TABLE).with_format("numpy", columns=["a"])
    assert rows(as_source(narrow, input_spec=A)).tolist() == list(range(23))
    with pytest.raises(
        ValueError, match=r"x lacks columns for the model inputs \['b'\]"
    ):
        as_source(narrow, input_spec=[A, B])


def test_a_data_set_with_a_transform_is_refused(data_set):
    lazy = data_set(TABLE).with_transform(lambda batch: batch)
    with pytest.raises(
        ValueError, match="x is a Dataset with a transform.*map.transfor"
    ):
        as_source(lazy, input_spec=A)


@pytest.mark.parametrize(
    ("column", "spec", "message"),
    [
        ([1, None, 3], A, "row 1 holds a null, expected a value. Fill it in, or leave"),
        ([1.0, 2.5, 3.0], A, "row 1 holds 2.5 .float64., expected an integer"),
        ([0, 2**40], tf.TensorSpec([None], tf.int32), "row 1 holds 1099511627776"),
    ],
)
def test_values_that_cannot_be_kept(column, spec, message):
    source = as_source(pa.table({"c": column}), input_spec=spec)
    batches = source.batches(1)
    assert next(batches).num_rows == 1
    with pytest.raises(BadRow, match=f"^x, column 'c', {message}"):
        next(batches)


def test_columns_that_do_not_fit(table):
    wide = tf.TensorSpec([None, 5], tf.float32, "wide")
    message = "x has no column named after the model's input, 'wide'.* Choose columns"
    with pytest.raises(ValueError, match=message):
        as_source(pa.table({"u": [1.0], "v": [2.0]}), input_spec=wide)
    message = (
        r"x lacks columns for the model inputs \['wide'\].* or rename them, by the"
    )
    with pytest.raises(ValueError, match=message):
        as_source(table, input_spec=[A, wide])


def test_a_frame_that_became_a_table():
    frame = pd.DataFrame({"c": [1.5, np.nan]}, index=[5, 3])
    table = pa.Table.from_pandas(frame)  # NaN is null there, and the index a column
    found = rows(as_source(table, input_spec=tf.TensorSpec([None], tf.float64)))
    np.testing.assert_array_equal(found, [1.5, np.nan])


def test_a_table_among_arrays(table):
    with pytest.raises(
        TypeError, match=r"x\['a'\] is .*: expected an array. Pass .*alone"
    ):
        as_source({"a": table})
