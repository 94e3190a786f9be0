"""The kinds of array-likes, and what reads the rows of each.

Rows of a NumPy array, a memory map or a tensor in host memory are views if their dtype
need not change.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources import frames, packed, sparse
from keras_mgpu_strategy.sources.casting import is_string
from keras_mgpu_strategy.sources.leaf import (
    Leaf,
    MappedArray,
    Memory,
    make_leaf,
    shape_of,
)
from keras_mgpu_strategy.sources.ragged_leaf import of_one_length, ragged_leaf
from keras_mgpu_strategy.sources.row_lists import RowList
from keras_mgpu_strategy.sources.unsupported import is_of, refuse
from keras_mgpu_strategy.types import Ragged

ACCEPTED = (
    "NumPy arrays, tensors, pandas or polars frames and series, sparse matrices, or "
    "anything with a shape and slicing on axis 0"
)


@dataclasses.dataclass(frozen=True, slots=True)
class OneLength:
    """An array-like whose rows are read as rows of tokens that happen to be as many."""

    x: Any


def is_array_like(x: Any) -> bool:
    """Whether `x` has a shape and can be sliced, itself or by an adapter here."""
    if isinstance(x, OneLength):
        return True
    is_sparse = sparse.is_matrix(x) or isinstance(x, tf.SparseTensor)
    has_shape = getattr(x, "shape", None) is not None
    return has_shape and (hasattr(x, "__getitem__") or is_sparse)


def as_leaf(x: Any, path: str) -> Leaf:
    """Returns what reads rows of an array-like; TypeError or ValueError if unfit."""
    refuse(x, path)
    for applies, adapter in _LEAVES:
        if applies(x):
            return adapter(x, path)
    raise TypeError(
        f"{path}: cannot read rows from {type(x).__name__}, expected {ACCEPTED}."
    )


def _tensor_dtype(x: Any) -> np.dtype:
    return np.dtype("S") if x.dtype == tf.string else np.dtype(x.dtype.as_numpy_dtype)


def _numpy(x: np.ndarray, path: str) -> Leaf:
    return make_leaf(np.asarray(x), path, x.dtype, memory=Memory.USERS)


def _tensor(x: tf.Tensor, path: str) -> Leaf:
    on_host = tf.DeviceSpec.from_string(x.device).device_type == "CPU"
    if on_host and x.dtype != tf.string:
        # np.asarray shares the memory of a tensor on the host; .numpy() copies it.
        return _numpy(np.asarray(x), path)
    return make_leaf(x, path, _tensor_dtype(x), lambda a, b: x[a:b].numpy())


def _pandas(x: Any, path: str) -> Leaf:
    find = frames.frame_dtype if frames.is_frame(x) else frames.column_dtype
    dtype = find(x, path)
    asked = np.dtype(object) if dtype.kind == "U" else dtype
    read = lambda a, b: x.iloc[a:b].to_numpy(dtype=asked)  # noqa: E731
    return make_leaf(x, path, dtype, read, Memory.USERS)


def _polars(x: Any, path: str) -> Leaf:
    read = frames.polars_rows(x, path)
    return make_leaf(x, path, np.asarray(read(0, 0)).dtype, read, Memory.USERS)


def _matrix(x: Any, path: str) -> Leaf:
    read, places = sparse.matrix_rows(x, path)
    return make_leaf(x, path, np.dtype(x.dtype), read, places=places)


def _sparse_tensor(x: tf.SparseTensor, path: str) -> Leaf:
    read, places = sparse.tensor_rows(x, path)
    return make_leaf(x, path, _tensor_dtype(x), read, places=places)


def _stored(x: Any, path: str) -> Leaf:
    """Reads an h5py or zarr array, each slice of which is a new array."""
    stored = (x.dtype.metadata or {}).get("vlen") if hasattr(x, "dtype") else None
    if stored is not None and not is_string(x.dtype):
        raise ValueError(
            f"{path} has rows of variable length, expected an array of numbers or "
            "strings. Pass pad=mgpu.Pad() with batches of it: "
            "(x[i : i + 1024] for i in range(0, len(x), 1024))."
        )
    read = packed.checked_rows(x, path)
    return make_leaf(x, path, np.asarray(x[0:0]).dtype, read)


def _is_stored(x: Any) -> bool:
    is_theirs = is_of("h5py")(x) or is_of("zarr")(x)
    return is_theirs and hasattr(x, "attrs") and is_array_like(x)


def _array_like(x: Any, path: str) -> Leaf:
    shape_of(x, path)
    try:
        # Reading no rows shows the dtype of what slicing returns, strings included.
        dtype = np.asarray(x[0:0]).dtype
    except Exception as error:
        raise TypeError(
            f"{path}: cannot read rows from {type(x).__name__}: x[0:0] is not "
            f"something that np.asarray can convert ({error})."
        ) from error
    varies = getattr(x, "dtype", None) != dtype
    return make_leaf(x, path, dtype, memory=Memory.UNKNOWN, varies=varies)


_LEAVES = (
    (lambda x: isinstance(x, Ragged | RowList), ragged_leaf),
    (
        lambda x: isinstance(x, OneLength),
        lambda x, path: of_one_length(as_leaf(x.x, path)),
    ),
    (lambda x: isinstance(x, np.ndarray), _numpy),
    (lambda x: isinstance(x, tf.Tensor), _tensor),
    (sparse.is_matrix, _matrix),
    (lambda x: isinstance(x, tf.SparseTensor), _sparse_tensor),
    (lambda x: frames.is_frame(x) or frames.is_series(x), _pandas),
    (frames.is_polars, _polars),
    (
        lambda x: isinstance(x, MappedArray),
        lambda x, path: make_leaf(x, path, x.dtype),
    ),
    (_is_stored, _stored),
    (is_array_like, _array_like),
)
