"""One array-like, read by rows.

Only the requested rows are read, and checked: the right number, in one dtype, and none
of them masked. Rows in memory of unknown ownership are copied, as it may be reused.
"""

import dataclasses
import enum
import mmap
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.casting import Cast, Wanted, cast_for, is_string
from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.sources.safe_casts import kind_of

Fetch: TypeAlias = Callable[[int, int], Any]
"""Returns the rows from a start to a stop index."""
_MOST_MAPPED_BYTES = 2**24


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

    `fetch` returns rows as stored, of dtype `stored` unless it `varies`; `memory` says
    who owns them, and `cast` converts them. `places` gives, for a sparse array, what
    reads as dense bools which values are stored.
    """

    path: str
    shape: tuple[Any, ...]
    stored: np.dtype
    fetch: Fetch
    memory: Memory
    varies: bool
    cast: Cast
    places: Callable[[], Fetch] | None = None

    @property
    def spec(self) -> tf.TensorSpec:
        """Spec of the rows, with an unknown batch axis."""
        return tf.TensorSpec((None, *self.shape[1:]), self.cast.dtype)

    def fitted(self, wanted: Wanted) -> "Leaf":
        """Returns the leaf converted to what a model takes."""
        stored = self.stored
        if self.varies and isinstance(wanted, tf.DType):
            declared = np.dtype(wanted.as_numpy_dtype)
            if {kind_of(stored), kind_of(declared)} <= set("bif"):
                stored = declared
        return dataclasses.replace(self, cast=cast_for(stored, self.path, wanted))

    def of_places(self) -> "Leaf | None":
        """Returns what reads where a sparse array stores values; else None."""
        if self.places is None:
            return None
        path = f"{self.path}, places of values"
        return make_leaf(self, path, np.dtype(bool), self.places())

    def view(self, start: int, stop: int, fail: Fail) -> tuple[np.ndarray, bool]:
        """Returns rows, and whether they lie in the memory that they came in."""
        rows = self.fetch(start, stop)
        # A masked value would lose its mask.
        if isinstance(rows, np.ma.MaskedArray) and np.ma.getmaskarray(rows).any():
            place = np.argwhere(np.ma.getmaskarray(rows))[0]
            remedy = "Pass an array without a mask, e.g. x.filled(value)."
            fail(int(place[0]), f"has a masked value, expected none. {remedy}")
        chunk = np.asarray(rows)
        expected = (stop - start, *self.shape[1:])
        if chunk.shape != expected:
            raise ValueError(
                f"{self.path}: rows {start} to {stop} came with shape {chunk.shape}, "
                f"expected {expected}. The input must not change while it is read."
            )
        given = self.cast.convert(chunk, fail)
        return given, np.may_share_memory(given, chunk)

    def read(self, start: int, stop: int) -> Any:
        """Returns rows in memory that will not change."""
        rows, is_shared = self.view(start, stop, failing(self.path, start))
        return rows.copy() if is_shared and self.memory is Memory.UNKNOWN else rows


def make_leaf(
    x: Any,
    path: str,
    dtype: np.dtype,
    fetch: Fetch | None = None,
    memory: Memory = Memory.NEW,
    *,
    varies: bool = False,
    places: Callable[[], Fetch] | None = None,
) -> Leaf:
    """Returns an unfitted leaf of slices of `x`, unless another function reads them.

    Objects that begin with a string are strings.
    """
    fetch = fetch or (lambda start, stop: x[start:stop])
    shape = shape_of(x, path)
    if dtype.kind == "O" and not is_string(dtype):
        first = np.asarray(fetch(0, min(1, shape[0]))).ravel()
        # The other values are checked when they are read.
        if not first.size or isinstance(first[0], str | bytes):
            dtype = np.dtype("U")
    return Leaf(
        path, shape, dtype, fetch, memory, varies, cast_for(dtype, path), places
    )


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


class MappedArray:
    """A read-only memory map, whose rows are views that stay valid."""

    def __init__(self, array: np.memmap) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._array = np.asarray(array)
        self._map = array.base if isinstance(array.base, mmap.mmap) else None
        self._num_bytes = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Returns rows as a view."""
        chunk = self._array[rows]
        self._num_bytes += chunk.nbytes
        if self._num_bytes > _MOST_MAPPED_BYTES:
            self._num_bytes = 0
            # Pages in use are mapped again when they are touched, from the page cache.
            if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)
        return chunk
