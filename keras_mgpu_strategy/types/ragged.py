"""Rows of unequal length, in two NumPy arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of shape `(length, ...)` that differ in length; a leaf of nests of arrays.

    Slices are views, as those of arrays are.

    Args:
        values: Array of shape `(number of tokens, ...)`, which may hold more than these
            rows.
        offsets: int64 array of shape `(num_rows + 1,)`: row r is
            `values[offsets[r] : offsets[r + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def shape(self) -> tuple[Any, ...]:
        """`(num_rows, None, ...)`."""
        return (len(self), None, *self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of these rows."""
        token = self.values.itemsize * int(np.prod(self.values.shape[1:]))
        return int(self.offsets[-1] - self.offsets[0]) * token

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> "Ragged":
        """Consecutive rows, as views."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"Received rows {rows}, expected consecutive ones.")
        return Ragged(self.values, self.offsets[start : max(start, stop) + 1])

    def packed(self) -> "Ragged":
        """The same rows, with values of no others, beginning at offset 0."""
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if (first, last) == (0, len(self.values)):
            return self
        return Ragged(self.values[first:last], self.offsets - first)

    def taken(self, rows: np.ndarray) -> "Ragged":
        """A copy of the rows of these indices, in their order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Ragged(self.values[places + np.arange(offsets[-1])], offsets)

    def to_tensor(self) -> Any:
        """As a `tf.RaggedTensor`."""
        packed = self.packed()
        kind: Any = tf.RaggedTensor
        return kind.from_row_splits(packed.values, packed.offsets, validate=False)


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several, in their order."""
    packed = [part.packed() for part in parts]
    lengths = np.concatenate([part.lengths for part in packed])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.concatenate([part.values for part in packed]), offsets)
