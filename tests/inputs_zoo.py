"""Rows -> every kind of input that predict methods take, for the conformance matrix.

Packages that some environments lack are imported where they are needed.
"""

import importlib
import os

import keras
import numpy as np
import tensorflow as tf

NUM_FEATURES = 12
SIZES = (5, 1, 30, 2)
"""Rows per batch of a stream; repeated."""


def rows(num_rows):
    """Integers, which every format holds; fewer rows are a prefix of more."""
    random = np.random.default_rng(5)
    return random.integers(0, 9, (num_rows, NUM_FEATURES)).astype(np.float32)


def _names(x):
    return [f"f{column}" for column in range(x.shape[1])]


def _frame(x):
    return importlib.import_module("pandas").DataFrame(x, columns=_names(x))


def _polars(x, folder):
    return importlib.import_module("polars").from_numpy(x, _names(x))


def _arrow(x):
    pyarrow = importlib.import_module("pyarrow")
    flat = pyarrow.array(x.reshape(-1))
    column = pyarrow.FixedSizeListArray.from_arrays(flat, NUM_FEATURES)
    return pyarrow.table({"x": column})


def _hugging_face(x, folder):
    return importlib.import_module("datasets").Dataset(_arrow(x))


def _batches(x):
    start = number = 0
    while start < len(x):
        stop = start + SIZES[number % len(SIZES)]
        yield x[start:stop]
        start, number = stop, number + 1


def _reusing(x, folder):
    """Batches that reuse the same memory."""
    memory = np.empty((max(SIZES), NUM_FEATURES), np.float32)
    for batch in _batches(x):
        memory[: len(batch)] = batch
        yield memory[: len(batch)]


class _PyDataset(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__(workers=1)
        self._parts = [*_batches(x)]

    def __len__(self):
        return len(self._parts)

    def __getitem__(self, index):
        return self._parts[index], np.zeros(len(self._parts[index]))


def _dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts[0] if len(parts) == 1 else parts)


def _npy(x, folder):
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def _npz(x, folder):
    np.savez(folder / "x.npz", x=x)
    return folder / "x.npz"


def _memmap(x, folder):
    return np.load(_npy(x, folder), mmap_mode="r" if len(x) else None)


def _csv(x, folder):
    _frame(x).to_csv(folder / "x.csv", index=False)
    return folder / "x.csv"


def _parquet(x, folder):
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(_arrow(x), folder / "x.parquet", row_group_size=9)
    return folder / "x.parquet"


def _parquet_files(x, folder):
    for number, part in enumerate(np.array_split(x, 3)):
        (folder / f"{number}").mkdir()
        _parquet(part, folder / f"{number}").rename(folder / f"{number}.parquet")
    return [folder / f"{number}.parquet" for number in range(3)]


def _h5(x, folder):
    with importlib.import_module("h5py").File(folder / "x.h5", "w") as file:
        file["x"] = x
    return folder / "x.h5"


def _zarr(x, folder):
    group = importlib.import_module("zarr").open_group(folder / "x.zarr", mode="w")
    group.create_array("x", data=x, chunks=(7, NUM_FEATURES))
    return folder / "x.zarr"


def _tfrecords(x, folder):
    files = importlib.import_module("keras_mgpu_strategy").files
    path = os.fspath(folder / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for row in x:
            writer.write(row.tobytes())
    # Rows of unknown length, as far as TensorFlow knows.
    return files.TFRecords(path, lambda record: tf.io.decode_raw(record, tf.float32))


def _images(x, folder):
    for number, row in enumerate(x.astype(np.uint8)):
        content = tf.io.encode_png(row.reshape(2, 2, 3)).numpy()
        (folder / f"{number:04}.png").write_bytes(content)
    return folder


INPUTS = {
    "array": lambda x, folder: x,
    "doubles": lambda x, folder: x.astype(np.float64),
    "bytes": lambda x, folder: x.astype(np.uint8),
    "tensor": lambda x, folder: tf.constant(x),
    "list_of_one": lambda x, folder: [x],
    "dict": lambda x, folder: {"x": x},
    "memmap": _memmap,
    "sliced_memmap": lambda x, folder: _memmap(x, folder)[:],
    "sparse": lambda x, folder: importlib.import_module("scipy.sparse").csr_matrix(x),
    "frame": lambda x, folder: _frame(x),
    "polars": _polars,
    "arrow": lambda x, folder: _arrow(x),
    "hugging_face": _hugging_face,
    "dataset": lambda x, folder: _dataset(x).batch(11),
    "dataset_with_labels": lambda x, folder: _dataset(x, x[:, 0], x[:, 1]).batch(7),
    "py_dataset": lambda x, folder: _PyDataset(x),
    "generator": lambda x, folder: _batches(x),
    "reused_memory": _reusing,
    "npy": _npy,
    "npz": _npz,
    "csv": _csv,
    "parquet": _parquet,
    "parquet_files": _parquet_files,
    "h5": _h5,
    "zarr": _zarr,
    "tfrecords": _tfrecords,
    "images": _images,
}
"""Name -> a function that makes the input from rows and an empty folder."""

NEEDS = {
    **{"sparse": "scipy", "frame": "pandas", "polars": "polars", "arrow": "pyarrow"},
    **{"hugging_face": "datasets", "csv": "pandas", "parquet": "pyarrow"},
    **{"parquet_files": "pyarrow", "h5": "h5py", "zarr": "zarr"},
}
"""Kind of input -> the package that it needs."""

NEVER_EMPTY = ("csv", "images")
"""Kinds that cannot be read if they have no rows."""
