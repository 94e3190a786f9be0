"""Sparse matrices and tensors, made dense a chunk of rows at a time.

Guarantees:

* Only the requested rows are made dense, so the whole dense array need not fit in
  memory.
* The places of stored values are available next to the dense rows, so that a step can
  make them sparse again: a stored zero stays stored.
* SciPy is recognised by name, never imported.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Fetch: TypeAlias = Callable[[int, int], np.ndarray]
"""Returns the rows from a start to a stop index as a dense array."""
_UNIQUE = ("dok", "lil", "dia")
"""Formats that hold each value once."""


def is_sparse(x: Any) -> bool:
    """Whether `x` is a SciPy sparse matrix or array, or a `tf.SparseTensor`."""
    return is_matrix(x) or isinstance(x, tf.SparseTensor)


def is_matrix(x: Any) -> bool:
    """Whether `x` is a SciPy sparse matrix or array."""
    return hasattr(x, "tocsr") and any(
        cls.__module__.startswith("scipy.sparse.") for cls in type(x).__mro__
    )


class MatrixRows:
    """Reads rows of a SciPy sparse matrix.

    If it is not stored by rows, it is converted once (`tocsr`), with as many values.

    Raises:
        ValueError: If it does not have two axes.
    """

    def __init__(self, x: Any, path: str) -> None:
        if len(x.shape) != 2:
            raise ValueError(
                f"{path} is a {type(x).__name__} of shape {x.shape}, expected two "
                "axes. Pass x.toarray()."
            )
        self._path = path
        self._given = x
        self._by_rows = x.tocsr()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows as a dense array."""
        return self._by_rows[start:stop].toarray()

    def places(self) -> Fetch:
        """Returns a function that reads which values of rows are stored.

        Raises:
            ValueError: If a value is stored in several parts.
        """
        _check_unique(self._given, self._path)
        by_rows = self._by_rows.copy()
        by_rows.data = np.ones(len(by_rows.data), np.bool_)
        return lambda start, stop: by_rows[start:stop].toarray()


class TensorRows:
    """Reads rows of a sparse tensor.

    Raises:
        ValueError: If an index lies outside of its shape, or occurs twice.
    """

    def __init__(self, x: tf.SparseTensor, path: str) -> None:
        # Otherwise it is copied to the first GPU if that is the default device.
        with tf.device("CPU:0"):
            ordered = tf.sparse.reorder(x)
        self._indices, self._values = ordered.indices.numpy(), ordered.values.numpy()
        self._shape = tuple(x.dense_shape.numpy().tolist())
        self._empty = b"" if x.dtype == tf.string else 0
        _check_indices(self._indices, self._shape, path)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows as a dense array."""
        return self._filled(start, stop, self._values, self._empty)

    def places(self) -> Fetch:
        """Returns a function that reads which values of rows are stored."""
        stored = np.ones(len(self._values), np.bool_)
        return lambda start, stop: self._filled(start, stop, stored, False)

    def _filled(
        self, start: int, stop: int, values: np.ndarray, empty: Any
    ) -> np.ndarray:
        rows = self._indices[:, 0]
        block = np.full((stop - start, *self._shape[1:]), empty, values.dtype)
        first, last = np.searchsorted(rows, [start, stop])
        inner = tuple(self._indices[first:last, 1:].T)
        block[(rows[first:last] - start, *inner)] = values[first:last]
        return block


def _check_unique(x: Any, path: str) -> None:
    """Checks that no value is stored in several parts, which dense rows would sum."""
    if x.format in _UNIQUE or getattr(x, "has_canonical_format", False):
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
