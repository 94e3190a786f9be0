"""Runs that write to files: inputs, results read back, and runs that fail."""

import csv
import shutil

import keras
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
import zarr

from keras_mgpu_strategy.compute import sizes as batch_size
from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.target import record_of
from keras_mgpu_strategy.runs import file_writer

SUFFIXES = (".npy", ".parquet", ".zarr", ".csv")
BATCH = 8
"""The global batch of most runs."""
USER_BATCH = 5
"""Rows per batch of generators and data sets."""


def classifier(activation="softmax", seed=7, fixed_batch=None):
    """A model whose results are probabilities."""
    inputs = keras.Input((2,), fixed_batch, name="x")
    dense = keras.layers.Dense(3, activation)
    return with_weights(keras.Model(inputs, dense(inputs)), seed)


def two_headed(seed=7):
    """A model of several outputs, by name."""
    inputs = keras.Input((2,), name="x")
    outputs = {
        "scores": keras.layers.Dense(3, "softmax")(inputs),
        "chance": keras.layers.Dense(1, "sigmoid")(inputs),
    }
    return with_weights(keras.Model(inputs, outputs), seed)


def two_armed(seed=7):
    """A model of two inputs, by name."""
    inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((1,), name="b")}
    joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    outputs = keras.layers.Dense(3, "softmax")(joined)
    return with_weights(keras.Model(inputs, outputs), seed)


def averaging(seed=7):
    """A model of rows of any length."""
    inputs = keras.Input((None, 2))
    mean = keras.layers.GlobalAveragePooling1D()(inputs)
    outputs = keras.layers.Dense(3, "softmax")(mean)
    return with_weights(keras.Model(inputs, outputs), seed)


def labelling():
    """A model whose results are strings of different length, by the sign of a row."""
    inputs = keras.Input((2,), name="x")
    thirds = keras.layers.Dense(3, use_bias=False)
    place = keras.ops.argmax(thirds(inputs), -1)
    thirds.set_weights([np.array([[1.0, -0.5, -0.5], [0.0, 0.87, -0.87]])])
    words = ["a", "bb, \u00e4", "c" * 40]
    names = keras.layers.StringLookup(vocabulary=words, invert=True)(place + 1)
    return keras.Model(inputs, names)


def with_weights(model, seed):
    random = np.random.default_rng(seed)
    model.set_weights([random.standard_normal(w.shape) for w in model.get_weights()])
    return model


def rows(num_rows, seed=0):
    return np.random.default_rng(seed).standard_normal((num_rows, 2), np.float32)


def sequences(num_rows, length, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((num_rows, length, 2), np.float32)


class Broken(Exception):
    """An error of the user's own."""


def generator(x, fails_at=None):
    """Batches of rows; raises in place of the batch that holds a given row."""
    for start in range(0, len(x), USER_BATCH):
        if fails_at is not None and fails_at < start + USER_BATCH:
            raise Broken(f"at batch {start // USER_BATCH}")
        yield x[start : start + USER_BATCH]


def data_set(x, fails_at=None):
    """The same as a `tf.data.Dataset` whose map raises."""
    bad = np.int64(-1 if fails_at is None else fails_at)

    def check(index, row):
        with tf.control_dependencies([tf.debugging.assert_none_equal(index, bad)]):
            return tf.identity(row)

    numbered = tf.data.Dataset.from_tensor_slices((np.arange(len(x)), x))
    return numbered.map(check).batch(USER_BATCH)


class Array:
    """The same as an array-like that raises when the row is read."""

    def __init__(self, x, fails_at=None):
        self._x, self._fails_at = x, fails_at
        self.shape, self.dtype = x.shape, x.dtype

    def __len__(self):
        return len(self._x)

    def __getitem__(self, key):
        bad = self._fails_at
        stop = key.stop if isinstance(key, slice) else key + 1
        if bad is not None and (stop is None or stop > bad):
            raise Broken(f"at row {bad}")
        return self._x[key]


INPUTS = {
    "array": lambda x: x,
    "generator": generator,
    "dataset": data_set,
}
FAILING = {"array": Array, "generator": generator, "dataset": data_set}
ERRORS = {
    "array": Broken,
    "generator": Broken,
    "dataset": tf.errors.InvalidArgumentError,
}


def make_small(monkeypatch, *, flushes=False):
    """Sets small parts and chunks; also a flush after every micro-batch."""
    if flushes:
        monkeypatch.setattr(file_writer, "_SECONDS_BETWEEN_FLUSHES", -1.0)
        monkeypatch.setattr(batch_size, "_MOST_MICRO_BATCHES", 1)
    monkeypatch.setitem(registry.WRITERS, ".parquet", ParquetFormat(part_bytes=700))
    monkeypatch.setitem(registry.WRITERS, ".zarr", ZarrFormat(chunk_bytes=200))


def results_in(path):
    """What other tools read: the name of each output -> an array of all rows."""
    return _READERS[path.suffix](path)


def _of_npy(path):
    if path.is_dir():
        return {file.stem: np.load(file) for file in path.glob("*.npy")}
    return {"output": np.load(path)}


def _of_parquet(path):
    table = pq.read_table(path).sort_by("row")
    assert table["row"].to_pylist() == list(range(table.num_rows))
    values = {name: table[name].combine_chunks() for name in table.column_names}
    del values["row"]
    return {name: _array_of(column) for name, column in values.items()}


def _array_of(column):
    if hasattr(column.type, "list_size"):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


def _of_zarr(path):
    group = zarr.open_group(path, mode="r")
    return {name: array[...] for name, array in group.arrays()}


def _of_csv(path):
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    assert header[0] == "row"
    assert [line[0] for line in lines] == [str(row) for row in range(len(lines))]
    columns = {}
    for index, name in enumerate(header[1:], 1):
        if name == "file":
            continue
        stem, _, number = name.rpartition("_")
        values = np.array([line[index] for line in lines], np.float64)
        columns.setdefault(stem if number.isdigit() else name, []).append(values)
    return {name: np.stack(parts, 1) for name, parts in columns.items()}


_READERS = {
    ".npy": _of_npy,
    ".parquet": _of_parquet,
    ".zarr": _of_zarr,
    ".csv": _of_csv,
}


def assert_holds(path, expected):
    """Checks that a file holds these results exactly; `.csv` has no dtype or shape."""
    if not isinstance(expected, dict):
        expected = {"output": expected}
    found = results_in(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        array = found[name]
        if path.suffix == ".csv":
            array = array.astype(values.dtype).reshape(values.shape)
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array, values)


def assert_nothing_beside(path):
    found = sorted(found.name for found in path.parent.iterdir())
    assert found == [record_of(path).name, path.name]


def journal_of(path):
    return path.with_name(f"{path.name}.journal")


def partial_of(path):
    return path.with_name(f"{path.name}.partial")


def safe_rows(path):
    """The number of rows that the journal of an unfinished output records."""
    progress = journals.read(journal_of(path)).progress
    return progress.rows if progress else 0


def copied(folder, target):
    shutil.copytree(folder, target)
    return target
