"""Rows of unequal length, in two NumPy arrays."""

import dataclasses
from collections.abc import Callable, Sequence
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

    @classmethod
    def of_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """Rows of these lengths, one after another."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values, offsets)

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
        return self.packed().values.nbytes

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

    def copy(self) -> "Ragged":
        """The same rows in memory of their own."""
        packed = self.packed()
        return Ragged(packed.values.copy(), packed.offsets.copy())

    def taken(self, rows: np.ndarray) -> "Ragged":
        """A copy of the rows of these indices, in their order."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        first = np.repeat(self.offsets[rows] - (ends - lengths), lengths)
        return Ragged.of_lengths(self.values[first + np.arange(len(first))], lengths)

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> "Ragged":
        """The same rows with other values, made from an array of all tokens."""
        packed = self.packed()
        return Ragged(function(packed.values), packed.offsets)

    def to_tensor(self) -> Any:
        """As a `tf.RaggedTensor`, in host memory."""
        packed = self.packed()
        kind: Any = tf.RaggedTensor
        with tf.device("CPU:0"):
            return kind.from_row_splits(packed.values, packed.offsets, validate=False)


def values_of(leaf: Any) -> np.ndarray:
    """The array of all tokens of `Ragged` rows; an array as it is."""
    return leaf.packed().values if isinstance(leaf, Ragged) else leaf


def rows_of(leaf: Any, places: Any) -> Any:
    """The rows that values belong to, by their places along axis 0 of `values_of`."""
    if not isinstance(leaf, Ragged):
        return places
    return np.searchsorted(leaf.offsets[1:] - leaf.offsets[0], places, side="right")


def as_tensors(nest: Any) -> Any:
    """Returns a nest of arrays with a `tf.RaggedTensor` in place of each `Ragged`."""
    return tf.nest.map_structure(
        lambda leaf: leaf.to_tensor() if isinstance(leaf, Ragged) else leaf, nest
    )


def joined(parts: Sequence[Any]) -> Any:
    """The rows of several, in their order; of arrays as `np.concatenate`."""
    if not isinstance(parts[0], Ragged):
        return np.concatenate(parts)
    packed = [part.packed() for part in parts]
    values = np.concatenate([part.values for part in packed])
    return Ragged.of_lengths(values, np.concatenate([x.lengths for x in packed]))


def has_free_length(shape: tf.TensorShape) -> bool:
    """Whether rows of a shape may differ in length."""
    return shape.rank is not None and shape.rank > 1 and shape[1] is None


def of_length(spec: tf.TensorSpec, length: int | None) -> tf.TensorSpec:
    """The spec of rows of a length; None for any."""
    shape = spec.shape.as_list()
    return tf.TensorSpec([shape[0], length, *shape[2:]], spec.dtype, spec.name)
