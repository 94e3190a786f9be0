"""Calls a predict method and returns what it gave, as nests of consecutive rows."""

import csv
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import zarr

from keras_mgpu_strategy.outputs.columns import columns_of

Part = Any
"""A nest of arrays, or of ragged tensors where Keras gives these."""


def predict(predictor: Any, x: Any, batch_size: int | None) -> list[Part]:
    """All rows at once."""
    return [predictor.predict(x, batch_size, verbose=0)]


def predict_iter(predictor: Any, x: Any, batch_size: int | None) -> list[Part]:
    """Batches, after checking that each begins where the last one ended."""
    parts, start = [], 0
    for batch in predictor.predict_iter(x, batch_size):
        assert batch.start == start
        start = batch.stop
        parts.append(batch.outputs)
    return parts


def predict_batches(predictor: Any, x: Any, batch_size: int | None) -> list[Part]:
    """The results of each batch of the user's."""
    return list(predictor.predict_batches(x))


METHODS: dict[str, Callable[[Any, Any, int | None], list[Part]]] = {
    "predict": predict,
    "predict_iter": predict_iter,
    "predict_batches": predict_batches,
}


def predict_to(
    predictor: Any, x: Any, batch_size: int | None, path: pathlib.Path, like: Part
) -> list[Part]:
    """Predicts to a file; returns what other tools read from it.

    Args:
        predictor: What is called.
        x, batch_size: Its arguments.
        path: The output.
        like: Outputs of the same structure, dtypes and shapes of a row.
    """
    predictor.predict_to(
        path, x, batch_size, 0, method="predict", on_nonfinite="ignore"
    )
    columns = columns_of(like)
    found = _READERS[path.suffix](path, columns)
    assert list(found) == sorted(column.name for column in columns)
    leaves = [found[column.name] for column in columns]
    return [tf.nest.pack_sequence_as(like, leaves)]


def _read_npy(path: pathlib.Path, columns: Any) -> dict[str, np.ndarray]:
    if path.is_dir():
        return {file.stem: np.load(file) for file in sorted(path.glob("*.npy"))}
    (column,) = columns  # a single file has no names
    return {column.name: np.load(path)}


def _read_zarr(path: pathlib.Path, columns: Any) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(array[...]) for name, array in sorted(group.arrays())}


def _read_parquet(path: pathlib.Path, columns: Any) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    assert table["row"].to_pylist() == list(range(table.num_rows))
    names = sorted(set(table.column_names) - {"row"})
    return {name: _of_lists(table[name]) for name in names}


def _of_lists(chunks: Any) -> np.ndarray:
    values, shape = chunks.combine_chunks(), [len(chunks)]
    while pa.types.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _read_csv(path: pathlib.Path, columns: Any) -> dict[str, np.ndarray]:
    """Columns of the dtypes that they should have: text has none."""
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    assert [line[0] for line in lines] == [str(row) for row in range(len(lines))]
    table = np.array(lines, dtype=str).reshape(len(lines), len(header))
    found, first = {}, 1
    for column in columns:
        width = column.row_shape[0] if column.row_shape else 1
        cells = table[:, first : first + width]
        expected = [f"{column.name}_{index}" for index in range(width)]
        assert header[first : first + width] in (expected, [column.name])
        values = cells == "true" if column.dtype == bool else cells.astype(column.dtype)
        found[column.name] = values.reshape(len(lines), *column.row_shape)
        first += width
    assert first == len(header)
    return dict(sorted(found.items()))


_READERS: dict[str, Callable[[pathlib.Path, Any], dict[str, np.ndarray]]] = {
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".zarr": _read_zarr,
    ".csv": _read_csv,
}
SUFFIXES = tuple(_READERS)
