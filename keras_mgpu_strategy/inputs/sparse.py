"""Sparse matrices and tensors, made dense a chunk of rows at a time.

Guarantees:

* Only the rows asked for are made dense: a model is given what it would be given of
  the dense array, which need not fit in memory.
* SciPy is recognised by name, never imported.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse matrix or array of SciPy, or a `tf.SparseTensor`."""
    return is_matrix(x) or isinstance(x, tf.SparseTensor)


def is_matrix(x: Any) -> bool:
    """Whether `x` is a sparse matrix or array of SciPy."""
    return hasattr(x, "tocsr") and any(
        cls.__module__.startswith("scipy.sparse.") for cls in type(x).__mro__
    )


def matrix_rows(x: Any, path: str) -> Callable[[int, int], np.ndarray]:
    """Returns what reads rows of a matrix of SciPy.

    One that is not stored by rows is converted once (`tocsr`), to as many values.

    Raises:
        ValueError: If it has not two axes.
    """
    if len(x.shape) != 2:
        raise ValueError(
            f"{path} is a {type(x).__name__} of shape {x.shape}, expected two axes. "
            "Pass x.toarray()."
        )
    by_rows = x.tocsr()
    return lambda start, stop: by_rows[start:stop].toarray()


def tensor_rows(x: tf.SparseTensor, path: str) -> Callable[[int, int], np.ndarray]:
    """Returns what reads rows of a sparse tensor.

    Raises:
        ValueError: If an index lies outside of its shape, or comes twice.
    """
    # Otherwise it is copied to the first GPU where one is the default.
    with tf.device("CPU:0"):
        ordered = tf.sparse.reorder(x)
    indices, values = ordered.indices.numpy(), ordered.values.numpy()
    shape = tuple(x.dense_shape.numpy().tolist())
    _check_indices(indices, shape, path)
    rows = indices[:, 0]

    def read(start: int, stop: int) -> np.ndarray:
        empty = b"" if x.dtype == tf.string else 0
        block = np.full((stop - start, *shape[1:]), empty, values.dtype)
        first, last = np.searchsorted(rows, [start, stop])
        inner = tuple(indices[first:last, 1:].T)
        block[(rows[first:last] - start, *inner)] = values[first:last]
        return block

    return read


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
