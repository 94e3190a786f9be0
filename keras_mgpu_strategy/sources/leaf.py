"""One array-like, read by rows.

Guarantees:

* Only the requested rows are read, and what is passed on is checked: the right number
  of rows, in one dtype whatever dtype they come in, and none of them masked.
* Rows in memory of unknown ownership are copied, as it may be reused.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.casting import Cast, Wanted, cast_for, is_string
from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.sources.safe_casts import kind_of

_TEXT = np.dtype("U")


class Memory(enum.Enum):
    """Who owns the memory that rows come in."""

    NEW = enum.auto()
    """Not shared: it is allocated for the rows, or never written to again."""
    USERS = enum.auto()
    """A part of the array that the user passed."""
    UNKNOWN = enum.auto()
    """Perhaps a buffer that is reused for the next rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One array-like of a nest.

    Args:
        path: Names the leaf in messages.
        shape: Its shape, rows first.
        stored: The expected dtype of rows when they are fetched.
        fetch: Returns the rows from a start to a stop index, as they are stored.
        memory: Who owns the memory of these.
        varies: Whether only the slices themselves show their dtype.
        cast: Converts them to what the model is given.
        places: For a sparse array: returns what reads which values of rows are stored,
            as dense bools. None for any other array.
    """

    path: str
    shape: tuple[int, ...]
    stored: np.dtype
    fetch: Callable[[int, int], Any]
    memory: Memory
    varies: bool
    cast: Cast
    places: Callable[[], Callable[[int, int], Any]] | None = None

    @property
    def spec(self) -> tf.TensorSpec:
        """Spec of the rows, with an unknown batch axis."""
        return tf.TensorSpec((None, *self.shape[1:]), self.cast.dtype)

    def fitted(self, wanted: Wanted) -> "Leaf":
        """Returns the leaf converted to what a model takes."""
        stored = self.stored
        if self.varies and isinstance(wanted, tf.DType):
            declared = np.dtype(wanted.as_numpy_dtype)
            both = kind_of(stored), kind_of(declared)
            stored = declared if set(both) <= set("bif") else stored
        return dataclasses.replace(self, cast=cast_for(stored, self.path, wanted))

    def of_places(self) -> "Leaf | None":
        """Returns what reads where a sparse array stores values; else None."""
        if self.places is None:
            return None
        path = f"{self.path}, places of values"
        return make_leaf(self, path, np.dtype(bool), self.places())

    def view(self, start: int, stop: int, fail: Fail) -> tuple[np.ndarray, bool]:
        """Returns rows, and whether they lie in the memory that they came in.

        Args:
            start: Index of the first row.
            stop: Index one past the last row.
            fail: Called for a row that cannot be used.
        """
        chunk = _plain(self.fetch(start, stop), fail)
        expected = (stop - start, *self.shape[1:])
        if chunk.shape != expected:
            raise ValueError(
                f"{self.path}: rows {start} to {stop} came with shape {chunk.shape}, "
                f"expected {expected}. The input must not change while it is read."
            )
        given = self.cast.convert(chunk, fail)
        return given, np.may_share_memory(given, chunk)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows in memory that will not change."""
        rows, is_shared = self.view(start, stop, failing(self.path, start))
        return rows.copy() if is_shared and self.memory is Memory.UNKNOWN else rows


def make_leaf(
    x: Any,
    path: str,
    dtype: np.dtype,
    fetch: Callable[[int, int], Any],
    memory: Memory = Memory.NEW,
    varies: bool = False,
) -> Leaf:
    """Returns a leaf for a model that declares nothing.

    Args:
        x: The array-like.
        path: As in `Leaf`; the others, too.
        dtype: Dtype of the fetched rows; objects that begin with a string are
            strings.
        fetch: Returns rows.
        memory: Who owns their memory.
        varies: Whether their dtype may be a different one.

    Raises:
        TypeError: If the number of rows is not known.
        ValueError: If there are no rows, or TensorFlow has no such dtype.
    """
    shape = shape_of(x, path)
    if dtype.kind == "O" and not is_string(dtype) and _begins_with_text(shape, fetch):
        dtype = _TEXT
    cast = cast_for(dtype, path)
    return Leaf(path, shape, dtype, fetch, memory, varies, cast)


def shape_of(x: Any, path: str) -> tuple[int, ...]:
    """Returns a shape with rows; raises as `make_leaf` does."""
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
    """Whether the first of the objects is a string; the others are checked later."""
    first = np.asarray(fetch(0, min(1, shape[0]))).ravel()
    return not first.size or isinstance(first[0], (str, bytes))


def _plain(rows: Any, fail: Fail) -> np.ndarray:
    """Returns rows as a plain array; fails if one is masked, as the mask is lost."""
    if isinstance(rows, np.ma.MaskedArray) and np.ma.getmaskarray(rows).any():
        place = np.argwhere(np.ma.getmaskarray(rows))[0]
        remedy = "Pass an array without a mask, e.g. x.filled(value)."
        fail(int(place[0]), f"has a masked value, expected none. {remedy}")
    return np.asarray(rows)
