"""Rows of unequal length -> every kind of input that holds them, for `pad=`.

Packages that some environments lack are imported where they are needed.
"""

import importlib
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SIZES = (5, 1, 30, 2)
"""Rows per batch of a stream; repeated."""


def rows(num_rows, longest=9, seed=3):
    """Lists of 1 to `longest` tokens above 0; fewer rows are a prefix of more."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, num_rows)
    tokens = random.integers(1, 50, (num_rows, longest))
    return [tokens[row, :length].tolist() for row, length in enumerate(lengths)]


def objects(x):
    """An object array of arrays."""
    found = np.empty(len(x), object)
    found[:] = [np.array(row, np.int64) for row in x]
    return found


def ragged(x):
    """A `tf.RaggedTensor`."""
    flat = np.array([token for row in x for token in row], np.int64)
    kind: Any = tf.RaggedTensor
    return kind.from_row_lengths(flat, np.array([*map(len, x)], np.int64))


def batches(x):
    """Lists of rows, as many as in the batches of a stream."""
    start = number = 0
    while start < len(x):
        stop = start + SIZES[number % len(SIZES)]
        yield x[start:stop]
        start, number = stop, number + 1


def _reusing(x, folder):
    """Batches of one length each, which reuse the same memory."""
    memory = np.empty((1, max(map(len, x), default=0)), np.int64)
    for row in x:
        memory[0, : len(row)] = row
        yield memory[:, : len(row)]


class _PyDataset(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__(workers=1)
        self._parts = [*batches(x)]

    def __len__(self):
        return len(self._parts)

    def __getitem__(self, index):
        return self._parts[index], np.zeros(len(self._parts[index]))


def _elements(x):
    spec = tf.TensorSpec([None], tf.int64)
    return tf.data.Dataset.from_generator(lambda: iter(x), output_signature=spec)


def _arrow(x, kind="list_"):
    pyarrow = importlib.import_module("pyarrow")
    kind = getattr(pyarrow, kind)(pyarrow.int32())
    return pyarrow.table({"x": pyarrow.array(x, kind)})


def _parquet(x, folder):
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(_arrow(x), folder / "x.parquet", row_group_size=9)
    return folder / "x.parquet"


def _parquet_files(x, folder):
    half = len(x) // 2
    for number, part in enumerate((x[:half], x[half:])):
        _parquet(part, folder).rename(folder / f"{number}.parquet")
    return [folder / f"{number}.parquet" for number in range(2)]


def _tfrecords(x, folder):
    files = importlib.import_module("keras_mgpu_strategy").files
    path = os.fspath(folder / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for row in x:
            writer.write(np.array(row, np.int64).tobytes())
    return files.TFRecords(path, lambda record: tf.io.decode_raw(record, tf.int64))


INPUTS = {
    "lists": lambda x, folder: x,
    "tuples": lambda x, folder: tuple(map(tuple, x)),
    "arrays": lambda x, folder: [np.array(row, np.int16) for row in x],
    "tensors": lambda x, folder: [tf.constant(row, tf.int32) for row in x],
    "objects": lambda x, folder: objects(x),
    "ragged": lambda x, folder: ragged(x),
    "dict": lambda x, folder: {"x": x},
    "pandas": lambda x, folder: importlib.import_module("pandas").DataFrame({"x": x}),
    "pandas_series": lambda x, folder: importlib.import_module("pandas").Series(x),
    "polars": lambda x, folder: importlib.import_module("polars").DataFrame(
        {"x": x}, {"x": importlib.import_module("polars").List(int)}
    ),
    "arrow": lambda x, folder: _arrow(x),
    "arrow_large": lambda x, folder: _arrow(x, "large_list"),
    "arrow_array": lambda x, folder: _arrow(x)["x"],
    "hugging_face": lambda x, folder: importlib.import_module("datasets").Dataset(
        _arrow(x)
    ),
    "parquet": _parquet,
    "parquet_files": _parquet_files,
    "generator": lambda x, folder: batches(x),
    "generator_of_ragged": lambda x, folder: map(ragged, batches(x)),
    "generator_of_objects": lambda x, folder: map(objects, batches(x)),
    "generator_with_labels": lambda x, folder: (
        (part, np.zeros(len(part))) for part in batches(x)
    ),
    "reused_memory": _reusing,
    "py_dataset": lambda x, folder: _PyDataset(x),
    "dataset": lambda x, folder: _elements(x).ragged_batch(11),
    "dataset_of_ragged": lambda x, folder: tf.data.Dataset.from_tensor_slices(
        ragged(x)
    ).batch(7),
    "dataset_of_one": lambda x, folder: _elements(x).batch(1),
    "tfrecords": _tfrecords,
}
"""Name -> a function that makes the input from `rows(...)` and an empty folder."""

NEEDS = {
    **dict.fromkeys(("pandas", "pandas_series"), "pandas"),
    **dict.fromkeys(("arrow", "arrow_large", "arrow_array"), "pyarrow"),
    **dict.fromkeys(("parquet", "parquet_files"), "pyarrow"),
    **{"polars": "polars", "hugging_face": "datasets"},
}
"""Kind of input -> the package that it needs."""

NEVER_EMPTY = ("pandas", "pandas_series")
"""Kinds that do not show that they hold lists if they have no rows."""
