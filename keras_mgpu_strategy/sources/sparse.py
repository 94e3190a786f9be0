"""Sparse matrices and tensors, made dense a chunk of rows at a time.

The places of stored values are available next to the dense rows, so that a step can
make them sparse again: a stored zero stays stored. SciPy is never imported.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.leaf import Fetch, shape_of

Readers: TypeAlias = tuple[Fetch, Callable[[], Fetch]]
"""What reads rows as dense arrays, and what returns the same for places of values."""


def is_matrix(x: Any) -> bool:
    """Whether `x` is a SciPy sparse matrix or array."""
    return hasattr(x, "tocsr") and any(
        cls.__module__.startswith("scipy.sparse.") for cls in type(x).__mro__
    )


def matrix_rows(x: Any, path: str) -> Readers:
    """Reads a SciPy matrix, converted to rows once; ValueError unless it has 2 axes."""
    if len(x.shape) != 2:
        raise ValueError(
            f"{path} is a {type(x).__name__} of shape {x.shape}, expected two axes. "
            "Pass x.toarray()."
        )
    by_rows = x.tocsr()

    def places() -> Fetch:
        _check_unique(x, path)
        stored = by_rows.copy()
        stored.data = np.ones(len(stored.data), np.bool_)
        return lambda start, stop: stored[start:stop].toarray()

    return lambda start, stop: by_rows[start:stop].toarray(), places


def tensor_rows(x: tf.SparseTensor, path: str) -> Readers:
    """Reads a sparse tensor; ValueError for indices outside its shape or repeated."""
    shape = shape_of(x, path)
    # Otherwise it is copied to the first GPU if that is the default device.
    with tf.device("CPU:0"):
        ordered = tf.sparse.reorder(x)
    indices, values = ordered.indices.numpy(), ordered.values.numpy()
    _check_indices(indices, shape, path)

    def reader(values: np.ndarray, empty: Any) -> Fetch:
        def read(start: int, stop: int) -> np.ndarray:
            block = np.full((stop - start, *shape[1:]), empty, values.dtype)
            first, last = np.searchsorted(indices[:, 0], [start, stop])
            row, *inner = indices[first:last].T
            block[(row - start, *inner)] = values[first:last]
            return block

        return read

    stored = np.ones(len(values), np.bool_)
    empty = b"" if x.dtype == tf.string else 0
    return reader(values, empty), lambda: reader(stored, False)


def _check_unique(x: Any, path: str) -> None:
    """Checks that no value is stored in several parts, which dense rows would sum."""
    holds_each_once = x.format in ("dok", "lil", "dia")
    if holds_each_once or getattr(x, "has_canonical_format", False):
        return
    joined = x.tocsr(copy=True)
    joined.sum_duplicates()
    if joined.nnz < x.nnz:
        raise ValueError(
            f"{path} is a {type(x).__name__} that stores some values in several parts, "
            "which layers of the model would see. Expected each value once. Call "
            "x.sum_duplicates() first."
        )


def _check_indices(indices: np.ndarray, shape: tuple[int, ...], path: str) -> None:
    outside = ((indices < 0) | (indices >= shape)).any(axis=1)
    if outside.any():
        raise ValueError(
            f"{path} is a SparseTensor of shape {shape} with a value at "
            f"{indices[outside][0].tolist()}, expected indices within the shape."
        )
    again = (indices[1:] == indices[:-1]).all(axis=1)
    if again.any():
        raise ValueError(
            f"{path} is a SparseTensor with two values at "
            f"{indices[1:][again][0].tolist()}, expected each index once. Add them up "
            "first."
        )
