"""Results in host memory, in the structure that Keras' `predict` returns.

If the number of rows is known, arrays are allocated once, and a lack of memory is an
error before any row is kept. Rows that differ in length, or whose shape differs between
batches as from Keras, become a `tf.RaggedTensor`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.outputs.rows import check_next
from keras_mgpu_strategy.types import HostBatch, Nest, Ragged, joined


def collected(batches: Iterable[HostBatch], num_rows: int | None) -> Nest:
    """All rows of batches in order: nest of arrays (or ragged tensors), copied."""
    structure: Nest = None
    leaves: list[_Leaf] = []
    stop = 0
    for batch in batches:
        check_next(batch, stop)
        arrays = tf.nest.flatten(batch.outputs)
        if not leaves:
            structure = batch.outputs
            leaves = [_Leaf(array, num_rows) for array in arrays]
        for leaf, array in zip(leaves, arrays, strict=True):
            leaf.append(stop, array)
        stop = batch.stop
    if not leaves:
        raise ValueError("There was no batch, so the outputs are not known.")
    return tf.nest.pack_sequence_as(structure, [leaf.joined(stop) for leaf in leaves])


class _Leaf:
    """One output: an array filled in place, or a list of parts."""

    def __init__(self, example: np.ndarray | Ragged, num_rows: int | None):
        self._array: np.ndarray | None = None
        self._parts: list[Any] = []
        if num_rows is not None and not isinstance(example, Ragged):
            self._array = _empty((num_rows, *example.shape[1:]), example.dtype)

    def append(self, start: int, rows: Any) -> None:
        array = self._array
        if array is not None and array.shape[1:] == rows.shape[1:]:
            array[start : start + len(rows)] = rows
            return
        if array is not None:
            self._parts, self._array = [array[:start]], None
        is_ragged = isinstance(rows, Ragged)
        self._parts.append(rows.mapped(np.array) if is_ragged else np.array(rows))

    def joined(self, num_rows: int) -> Any:
        if self._array is not None:
            return self._array[:num_rows]
        parts = [part for part in self._parts if len(part)] or self._parts[:1]
        if isinstance(parts[0], Ragged):
            return joined(parts).to_tensor()
        if len({part.shape[1:] for part in parts}) == 1:
            return np.concatenate(parts)
        return _ragged(parts)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        return np.empty(shape, dtype)
    # The second is for more bytes than can be counted.
    except (MemoryError, ValueError) as error:
        num_bytes = math.prod(shape) * dtype.itemsize
        raise ValueError(
            f"The results of {shape[0]} rows take {num_bytes} bytes, more than there "
            "is memory. Check that the input has as many rows; write results to a file "
            "with `predict_to`, or take them a batch at a time from `predict_iter`."
        ) from error


def _ragged(parts: Sequence[np.ndarray]) -> Any:
    """Joins parts as Keras does: axes after the last varying one stay uniform."""
    shapes = np.array([part.shape[1:] for part in parts])
    varying = np.flatnonzero((shapes != shapes[0]).any(axis=0))
    ragged_rank = int(varying[-1]) + 1
    kind: Any = tf.RaggedTensor  # its type stub lacks from_tensor
    ragged = [kind.from_tensor(part, ragged_rank=ragged_rank) for part in parts]
    return tf.concat(ragged, axis=0)
