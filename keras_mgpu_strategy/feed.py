"""Hands out the rows of a source as chunks, to any number of threads.

Guarantees:

* Chunks leave in the order of their rows, each row in exactly one of them.
* A chunk holds whole micro-batches: the last one is filled up with copies of its
  last row, so that a model never sees fewer rows, nor made-up values.
* A source without rows still gives one chunk, of padding only, so that the
  structure and dtypes of the results are known.
* An error of the source ends the feed and is kept in `error`, so that the rows
  before it can be delivered before it is raised.
"""

import dataclasses
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import InputBatch, Nest, Source


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """What one replica takes at a time.

    Args:
        start: Index of the first row in the user's input.
        num_rows: Number of real rows; what follows them is padding.
        inputs: Nest of NumPy arrays of shape `(k * batch_size, ...)`.
    """

    start: int
    num_rows: int
    inputs: Nest


class Feed:
    """Chunks of a source, taken by several threads.

    Args:
        source: The rows.
        batch_size: Per-replica batch; chunks hold a multiple of it.
        micro_batches: The most micro-batches that a chunk holds.
        start: Index of the first row to hand out.
    """

    def __init__(
        self, source: Source, batch_size: int, micro_batches: int, start: int = 0
    ):
        self._source = source
        self._batch_size = batch_size
        self._start = start
        self._blocks = source.batches(batch_size * micro_batches, start)
        self._lock = threading.Lock()
        self._handed_out = False
        self._closed = False
        self.error: BaseException | None = None

    def take(self) -> Chunk | None:
        """The next chunk, or None after the last one and after an error."""
        with self._lock:
            try:
                block = self._next_block()
            except BaseException as error:  # noqa: BLE001 - kept for the engine to raise
                self.error, block = error, None
                self._closed = True
        return None if block is None else self._padded(block)

    def close(self) -> None:
        """Ends the feed: later calls of `take` return None."""
        with self._lock:
            self._closed = True
            _close(self._blocks)

    def _next_block(self) -> InputBatch | None:
        if self._closed:
            return None
        for block in self._blocks:
            self._handed_out = True
            return block
        if self._handed_out:
            return None
        self._handed_out = True
        return InputBatch(self._start, 0, example_inputs(self._source.spec, 0))

    def _padded(self, block: InputBatch) -> Chunk:
        if block.num_rows == 0:
            inputs = example_inputs(self._source.spec, self._batch_size)
            return Chunk(block.start, 0, inputs)
        missing = -block.num_rows % self._batch_size
        inputs = tf.nest.map_structure(lambda a: _fill_up(a, missing), block.inputs)
        return Chunk(block.start, block.num_rows, inputs)


def _fill_up(array: np.ndarray, missing: int) -> np.ndarray:
    if missing == 0:
        return array
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def _close(blocks: Iterator[InputBatch]) -> None:
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


def example_inputs(spec: Nest, num_rows: int) -> Nest:
    """Zeros (empty strings) of a spec; an axis of unknown length gets length 1.

    Args:
        spec: Nest of `tf.TensorSpec`, batch axis first.
        num_rows: Length of the batch axis.

    Returns:
        Nest of NumPy arrays of shape `(num_rows, ...)`.
    """

    def zeros(leaf: tf.TensorSpec) -> np.ndarray:
        shape = [num_rows, *(1 if axis is None else axis for axis in leaf.shape[1:])]
        if leaf.dtype == tf.string:
            return np.zeros(shape, "S1")
        return np.zeros(shape, leaf.dtype.as_numpy_dtype)

    return tf.nest.map_structure(zeros, spec)


def row_bytes(spec: Nest) -> int:
    """Bytes of one row of a spec; unknown axes count as 1, strings as 16 bytes."""

    def leaf_bytes(leaf: tf.TensorSpec) -> int:
        item = 16 if leaf.dtype == tf.string else leaf.dtype.size
        axes = (1 if axis is None else axis for axis in leaf.shape[1:])
        return item * int(np.prod(list(axes), dtype=np.int64))

    return sum(leaf_bytes(leaf) for leaf in tf.nest.flatten(spec))
