"""Nests of array-likes, sliced on axis 0.

Guarantees:

* Only the rows asked for are read; a chunk of a NumPy array, a memory map or a
  tensor in host memory is a view where its dtype need not change.
* All leaves have the same number of rows, and each slice the rows asked for.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs import frames, sparse
from keras_mgpu_strategy.inputs.casting import cast_for
from keras_mgpu_strategy.inputs.nests import leaves, pack, skeleton
from keras_mgpu_strategy.inputs.refusals import refuse
from keras_mgpu_strategy.inputs.validate import check_batch_size, check_start
from keras_mgpu_strategy.types import InputBatch, Nest

ACCEPTED = (
    "NumPy arrays, tensors, pandas DataFrames or Series, sparse matrices, or anything "
    "with a shape and slicing on axis 0"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One array-like of a nest.

    Args:
        path: Names the leaf in messages.
        shape: Its shape, rows first.
        dtype: What the model is given.
        fetch: Returns the rows from one index to another, as they are stored.
        convert: Makes them what the model is given.
    """

    path: str
    shape: tuple[int, ...]
    dtype: tf.DType
    fetch: Callable[[int, int], Any]
    convert: Callable[[np.ndarray], np.ndarray]

    @property
    def spec(self) -> tf.TensorSpec:
        """The rows with the batch axis unknown."""
        return tf.TensorSpec((None, *self.shape[1:]), self.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the rows from `start` to `stop`."""
        chunk = np.asarray(self.fetch(start, stop))
        expected = (stop - start, *self.shape[1:])
        if chunk.shape != expected:
            raise ValueError(
                f"{self.path}: rows {start} to {stop} came with shape {chunk.shape}, "
                f"expected {expected}. The input must not change while it is read."
            )
        return self.convert(chunk)


class ArraySource:
    """A `Source` over a nest of array-likes.

    Args:
        x: Nest of array-likes.
        limit: Read no more rows than this.

    Raises:
        TypeError: If a leaf is not an array-like.
        ValueError: If a leaf has no rows, a dtype without a counterpart in
            TensorFlow, or another number of rows than the rest.
    """

    def __init__(self, x: Nest, limit: int | None = None) -> None:
        self._leaves = as_leaves(x)
        self._structure = skeleton(x)
        rows = self._leaves[0].shape[0]
        self._num_rows = rows if limit is None else min(rows, limit)

    @property
    def num_rows(self) -> int:
        """Number of rows to read."""
        return self._num_rows

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`, the batch axis None."""
        return pack(self._structure, [leaf.spec for leaf in self._leaves])

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows, the last one with what is left."""
        check_batch_size(batch_size, self)
        check_start(start, self._num_rows)
        return self._read(batch_size, start)

    def _read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        for first in range(start, self._num_rows, batch_size):
            stop = min(first + batch_size, self._num_rows)
            flat = [leaf.read(first, stop) for leaf in self._leaves]
            yield InputBatch(first, stop - first, pack(self._structure, flat))


def as_leaves(x: Nest) -> list[Leaf]:
    """Returns the leaves of a nest of array-likes, of one length each.

    Raises:
        TypeError: If a leaf is not an array-like.
        ValueError: If there are none, or their lengths differ.
    """
    found = [_as_leaf(leaf, path) for path, leaf in leaves(x)]
    if not found:
        raise ValueError(f"Received an empty {type(x).__name__}, expected {ACCEPTED}.")
    if len({leaf.shape[0] for leaf in found}) > 1:
        lengths = ", ".join(f"{leaf.path}: {leaf.shape[0]}" for leaf in found)
        raise ValueError(
            f"Received inputs of unequal length ({lengths}), expected the same number "
            "of rows in each."
        )
    return found


def is_array_like(x: Any) -> bool:
    """Whether `x` has a shape and can be sliced, as it is or by an adapter here."""
    has_shape = getattr(x, "shape", None) is not None
    return has_shape and (hasattr(x, "__getitem__") or sparse.is_sparse(x))


def _as_leaf(x: Any, path: str) -> Leaf:
    refuse(x, path)
    for applies, adapter in _LEAVES:
        if applies(x):
            return adapter(x, path)
    raise TypeError(
        f"{path}: cannot read rows from {type(x).__name__}, expected {ACCEPTED}."
    )


def _leaf(x: Any, path: str, dtype: np.dtype, fetch: Callable) -> Leaf:
    shape, cast = _shape(x, path), cast_for(dtype, path)
    return Leaf(path, shape, cast.dtype, fetch, cast.convert)


def _shape(x: Any, path: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in x.shape)
    if not shape:
        raise ValueError(
            f"{path} has shape (), expected a batch axis first. Use x[np.newaxis] for "
            "a single row."
        )
    return shape


def _tensor_dtype(x: Any) -> np.dtype:
    return np.dtype("S") if x.dtype == tf.string else np.dtype(x.dtype.as_numpy_dtype)


def _numpy(x: np.ndarray, path: str) -> Leaf:
    return _leaf(x, path, x.dtype, lambda start, stop: x[start:stop])


def _tensor(x: tf.Tensor, path: str) -> Leaf:
    on_host = tf.DeviceSpec.from_string(x.device).device_type == "CPU"
    if on_host and x.dtype != tf.string:
        # np.asarray shares the memory of a tensor on the host; .numpy() copies it.
        return _numpy(np.asarray(x), path)
    return _leaf(x, path, _tensor_dtype(x), lambda start, stop: x[start:stop].numpy())


def _frame(x: Any, path: str) -> Leaf:
    return _pandas(x, path, frames.frame_dtype(x, path))


def _series(x: Any, path: str) -> Leaf:
    return _pandas(x, path, frames.column_dtype(x, path))


def _pandas(x: Any, path: str, dtype: np.dtype) -> Leaf:
    asked = frames.read_dtype(dtype)
    return _leaf(
        x, path, dtype, lambda start, stop: x.iloc[start:stop].to_numpy(dtype=asked)
    )


def _matrix(x: Any, path: str) -> Leaf:
    return _leaf(x, path, np.dtype(x.dtype), sparse.matrix_rows(x, path))


def _sparse_tensor(x: tf.SparseTensor, path: str) -> Leaf:
    _shape(x, path)
    return _leaf(x, path, _tensor_dtype(x), sparse.tensor_rows(x, path))


def _array_like(x: Any, path: str) -> Leaf:
    _shape(x, path)
    try:
        # Reading no rows shows the dtype of what slicing returns, strings included.
        dtype = np.asarray(x[0:0]).dtype
    except Exception as error:
        raise TypeError(
            f"{path}: cannot read rows from {type(x).__name__}: x[0:0] is not "
            f"something that np.asarray can convert ({error})."
        ) from error
    return _leaf(x, path, dtype, lambda start, stop: x[start:stop])


_LEAVES = (
    (lambda x: isinstance(x, np.ndarray), _numpy),
    (lambda x: isinstance(x, tf.Tensor), _tensor),
    (sparse.is_matrix, _matrix),
    (lambda x: isinstance(x, tf.SparseTensor), _sparse_tensor),
    (frames.is_frame, _frame),
    (frames.is_series, _series),
    (is_array_like, _array_like),
)
