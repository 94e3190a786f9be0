"""Array-likes of every kind, each read by rows.

Guarantees:

* Only the rows asked for are read; rows of a NumPy array, a memory map or a tensor in
  host memory are views where their dtype need not change.
* Each slice has the rows asked for, in one dtype, whatever dtype they come in. Masked
  values are an error.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs import frames, sparse
from keras_mgpu_strategy.inputs.casting import Cast, Wanted, cast_for, is_string
from keras_mgpu_strategy.inputs.refusals import refuse
from keras_mgpu_strategy.inputs.row_errors import BadRow
from keras_mgpu_strategy.inputs.safe_casts import kind_of

ACCEPTED = (
    "NumPy arrays, tensors, pandas or polars frames and series, sparse matrices, or "
    "anything with a shape and slicing on axis 0"
)
_TEXT = np.dtype("U")
_GIVE_NEW_MEMORY = ("h5py", "zarr", "keras_mgpu_strategy")


class Memory(enum.Enum):
    """Whose the memory is that rows come in."""

    NEW = enum.auto()
    """Nobody else's: it is made for the rows, or is never written to again."""
    USERS = enum.auto()
    """A part of the array that the user passed."""
    UNKNOWN = enum.auto()
    """Perhaps a buffer that is filled again for the next rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One array-like of a nest.

    Args:
        path: Names the leaf in messages.
        shape: Its shape, rows first.
        stored: The dtype that rows have when they are fetched, by what is known.
        fetch: Returns the rows from one index to another, as they are stored.
        memory: Whose the memory of these is.
        varies: Whether nothing but the slices themselves tells their dtype.
        cast: Makes them what the model is given.
    """

    path: str
    shape: tuple[int, ...]
    stored: np.dtype
    fetch: Callable[[int, int], Any]
    memory: Memory
    varies: bool
    cast: Cast

    @property
    def spec(self) -> tf.TensorSpec:
        """The rows with the batch axis unknown."""
        return tf.TensorSpec((None, *self.shape[1:]), self.cast.dtype)

    def fitted(self, wanted: Wanted) -> "Leaf":
        """Returns the leaf for what a model takes."""
        stored = self.stored
        if self.varies and kind_of(stored) and isinstance(wanted, tf.DType):
            declared = np.dtype(wanted.as_numpy_dtype)
            stored = declared if kind_of(declared) else stored
        return dataclasses.replace(self, cast=cast_for(stored, self.path, wanted))

    def view(self, start: int, stop: int) -> tuple[np.ndarray, bool]:
        """Returns rows, and whether they lie in the memory that they came in."""
        chunk = _plain(self.fetch(start, stop), self.path, start)
        expected = (stop - start, *self.shape[1:])
        if chunk.shape != expected:
            raise ValueError(
                f"{self.path}: rows {start} to {stop} came with shape {chunk.shape}, "
                f"expected {expected}. The input must not change while it is read."
            )
        given = self.cast.convert(chunk, start)
        return given, np.may_share_memory(given, chunk)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows in memory that stays as it is."""
        rows, is_shared = self.view(start, stop)
        return rows.copy() if is_shared and self.memory is Memory.UNKNOWN else rows


def is_array_like(x: Any) -> bool:
    """Whether `x` has a shape and can be sliced, as it is or by an adapter here."""
    has_shape = getattr(x, "shape", None) is not None
    return has_shape and (hasattr(x, "__getitem__") or sparse.is_sparse(x))


def as_leaf(x: Any, path: str) -> Leaf:
    """Returns what reads an array-like by rows, for a model that declares nothing.

    Raises:
        TypeError: If it is none.
        ValueError: If it has no rows, or a dtype without a counterpart in TensorFlow.
    """
    refuse(x, path)
    for applies, adapter in _LEAVES:
        if applies(x):
            return adapter(x, path)
    raise TypeError(
        f"{path}: cannot read rows from {type(x).__name__}, expected {ACCEPTED}."
    )


def _leaf(
    x: Any,
    path: str,
    dtype: np.dtype,
    fetch: Callable[[int, int], Any],
    memory: Memory = Memory.NEW,
    varies: bool = False,
) -> Leaf:
    shape = _shape(x, path)
    if dtype.kind == "O" and not is_string(dtype) and _begins_with_text(shape, fetch):
        dtype = _TEXT
    cast = cast_for(dtype, path)
    return Leaf(path, shape, dtype, fetch, memory, varies, cast)


def _shape(x: Any, path: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in x.shape)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{path} is a {type(x).__name__} of shape {tuple(x.shape)}, expected one "
            "whose number of rows is known. Call x.compute_chunk_sizes() on an array "
            "of Dask, or x.compute() on a frame."
        ) from error
    if not shape:
        raise ValueError(
            f"{path} has shape (), expected a batch axis first. Use x[np.newaxis] for "
            "a single row."
        )
    return shape


def _begins_with_text(shape: tuple[int, ...], fetch: Callable[[int, int], Any]) -> bool:
    """Whether objects are strings by the first one; the others are checked later."""
    first = np.asarray(fetch(0, min(1, shape[0]))).ravel()
    return not first.size or isinstance(first[0], (str, bytes))


def _plain(rows: Any, path: str, start: int) -> np.ndarray:
    """Returns rows as an array, which would drop the mask of a masked one."""
    if isinstance(rows, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(rows)
        if masked.any():
            index = int(np.argwhere(masked)[0][0])
            raise BadRow(
                f"{path}, row {start + index} has a masked value, expected none. Pass "
                "an array without a mask, e.g. x.filled(value).",
                index,
            )
    return np.asarray(rows)


def _tensor_dtype(x: Any) -> np.dtype:
    return np.dtype("S") if x.dtype == tf.string else np.dtype(x.dtype.as_numpy_dtype)


def _numpy(x: np.ndarray, path: str) -> Leaf:
    array = np.asarray(x)
    return _leaf(x, path, x.dtype, lambda a, b: array[a:b], Memory.USERS)


def _tensor(x: tf.Tensor, path: str) -> Leaf:
    on_host = tf.DeviceSpec.from_string(x.device).device_type == "CPU"
    if on_host and x.dtype != tf.string:
        # np.asarray shares the memory of a tensor on the host; .numpy() copies it.
        return _numpy(np.asarray(x), path)
    return _leaf(x, path, _tensor_dtype(x), lambda a, b: x[a:b].numpy())


def _frame(x: Any, path: str) -> Leaf:
    return _pandas(x, path, frames.frame_dtype(x, path))


def _series(x: Any, path: str) -> Leaf:
    return _pandas(x, path, frames.column_dtype(x, path))


def _pandas(x: Any, path: str, dtype: np.dtype) -> Leaf:
    asked = frames.read_dtype(dtype)
    read = lambda a, b: x.iloc[a:b].to_numpy(dtype=asked)  # noqa: E731
    return _leaf(x, path, dtype, read, Memory.USERS)


def _polars(x: Any, path: str) -> Leaf:
    read = frames.polars_rows(x, path)
    return _leaf(x, path, np.asarray(read(0, 0)).dtype, read, Memory.USERS)


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
    is_known = type(x).__module__.split(".")[0] in _GIVE_NEW_MEMORY
    memory = Memory.NEW if is_known else Memory.UNKNOWN
    varies = getattr(x, "dtype", None) != dtype
    return _leaf(x, path, dtype, lambda a, b: x[a:b], memory, varies)


_LEAVES = (
    (lambda x: isinstance(x, np.ndarray), _numpy),
    (lambda x: isinstance(x, tf.Tensor), _tensor),
    (sparse.is_matrix, _matrix),
    (lambda x: isinstance(x, tf.SparseTensor), _sparse_tensor),
    (frames.is_frame, _frame),
    (frames.is_series, _series),
    (frames.is_polars, _polars),
    (is_array_like, _array_like),
)
