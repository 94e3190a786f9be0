"""Large inputs of every streaming format: how to write and read the files."""

import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

NUM_COLUMNS = 20
BLOCK_ROWS = 1 << 16
BATCH = 1024
"""Rows of a `tf.data.Dataset`'s batch, and of a per-replica batch."""


@functools.cache
def block() -> np.ndarray:
    """The rows that all inputs repeat."""
    return np.random.default_rng(0).random((BLOCK_ROWS, NUM_COLUMNS), np.float32)


def blocks(num_rows: int) -> Iterator[np.ndarray]:
    """All rows, a block at a time."""
    for start in range(0, num_rows, BLOCK_ROWS):
        yield block()[: num_rows - start]


def write_npy(path: pathlib.Path, num_rows: int) -> None:
    """Rows as a `.npy` file."""
    shape = (num_rows, NUM_COLUMNS)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for index, part in enumerate(blocks(num_rows)):
        rows[index * BLOCK_ROWS :][: len(part)] = part
    rows.flush()


def write_hdf5(path: pathlib.Path, num_rows: int) -> None:
    """Rows as a data set of an HDF5 file."""
    import h5py

    with h5py.File(path, "w") as file:
        rows = file.create_dataset("x", (num_rows, NUM_COLUMNS), np.float32)
        for index, part in enumerate(blocks(num_rows)):
            rows[index * BLOCK_ROWS : index * BLOCK_ROWS + len(part)] = part


def write_zarr(path: pathlib.Path, num_rows: int) -> None:
    """Rows as a zarr array."""
    import zarr

    shape, chunks = (num_rows, NUM_COLUMNS), (BLOCK_ROWS, NUM_COLUMNS)
    rows = zarr.create_array(path, shape=shape, chunks=chunks, dtype=np.float32)
    for index, part in enumerate(blocks(num_rows)):
        rows[index * BLOCK_ROWS : index * BLOCK_ROWS + len(part)] = part


def write_parquet(path: pathlib.Path, num_rows: int) -> None:
    """Rows as one Parquet file of many row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(part: np.ndarray) -> Any:
        return pa.table({f"c{index}": part[:, index] for index in range(NUM_COLUMNS)})

    with pq.ParquetWriter(path, table(block()[:0]).schema) as file:
        for part in blocks(num_rows):
            file.write_table(table(part))


def write_tfrecords(path: pathlib.Path, num_rows: int) -> None:
    """Rows as records of their bytes; such files can be concatenated."""
    import tensorflow as tf

    with open(path, "wb") as file:
        for part in blocks(num_rows):
            one = path.with_name(f"{len(part)}.tfrecord")
            if not one.exists():
                with tf.io.TFRecordWriter(f"{one}") as writer:
                    for row in part:
                        writer.write(row.tobytes())
            with open(one, "rb") as records:
                shutil.copyfileobj(records, file)


def write_csv(path: pathlib.Path, num_rows: int) -> None:
    """Rows as text."""
    header = ",".join(f"c{index}" for index in range(NUM_COLUMNS))
    lines = [",".join(map(repr, row)) for row in block().tolist()]
    with open(path, "w") as file:
        file.write(f"{header}\n")
        for part in blocks(num_rows):
            file.write("\n".join(lines[: len(part)]) + "\n")


def no_file(path: pathlib.Path, num_rows: int) -> None:
    """Rows are made as they are read."""


def tf_records(path: pathlib.Path) -> Any:
    """Records of the bytes of rows."""
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu

    def parse(record: Any) -> Any:
        return tf.ensure_shape(tf.io.decode_raw(record, tf.float32), (NUM_COLUMNS,))

    return mgpu.files.TFRecords(path, parse)


def data_set(path: pathlib.Path) -> Any:
    """A `tf.data` pipeline over the memory map."""
    import tensorflow as tf

    rows = np.load(path, mmap_mode="r")

    def batch(start: Any) -> Any:
        read = lambda first: rows[first : first + BATCH]  # noqa: E731
        return tf.ensure_shape(
            tf.numpy_function(read, [start], tf.float32, stateful=False),
            (None, NUM_COLUMNS),
        )

    return tf.data.Dataset.range(0, len(rows), BATCH).map(batch).prefetch(2)


def named(name: str) -> Callable[[pathlib.Path], Any]:
    """One of `mgpu.files`, applied to a path."""

    def open_file(path: pathlib.Path) -> Any:
        import keras_mgpu_strategy as mgpu

        return getattr(mgpu.files, name)(path)

    return open_file


# Name -> how to write the file, how to read it; None if the rows need no file.
SOURCES: dict[str, tuple[Callable[[pathlib.Path, int], None], Any]] = {
    ".npy memory map": (write_npy, lambda path: np.load(path, mmap_mode="r")),
    ".npy": (write_npy, named("Npy")),
    ".parquet": (write_parquet, named("Parquet")),
    ".h5": (write_hdf5, named("Hdf5")),
    ".zarr": (write_zarr, named("Zarr")),
    ".tfrecord": (write_tfrecords, tf_records),
    "tf.data": (write_npy, data_set),
    "generator": (no_file, None),
    ".csv": (write_csv, named("Csv")),
}
