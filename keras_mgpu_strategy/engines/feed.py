"""Hands out the rows of a source as chunks, to any number of threads.

Guarantees:

* Chunks leave in the order of their rows, each row in exactly one of them.
* A chunk is padded to whole micro-batches with copies of its last row, so that a
  model never sees fewer rows, nor placeholder values.
* A source without rows still gives one chunk, of padding only, so that the
  structure and dtypes of the results are known.
* An error of the source ends the feed and is kept in `error`, so that the rows
  before it can be delivered before it is raised.
* Ending a feed waits for nothing, so any thread may do it at any moment, even one
  that is reading, when the garbage collector runs in it.
"""

import contextlib
import dataclasses
import threading

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import example_inputs
from keras_mgpu_strategy.system.arithmetic import ceil_div
from keras_mgpu_strategy.system.closing import close
from keras_mgpu_strategy.types import InputBatch, Nest, Source, cut


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """What one replica takes at a time.

    Args:
        start: Index of the first row in the user's input.
        num_rows: Number of rows; 0 if the source has none at all, and `inputs`
            then holds one placeholder row.
        inputs: Nest of NumPy arrays of shape `(num_rows, ...)`.
    """

    start: int
    num_rows: int
    inputs: Nest

    @property
    def failed(self) -> str:
        """A note for errors of a step on this chunk."""
        return f"Raised while rows {self.start} to {self.start + self.num_rows} ran."

    @property
    def most_rows(self) -> int:
        """Rows that a device is given."""
        return self.num_rows

    def split(self, num_rows: int | None) -> tuple["Chunk", "Chunk | None"]:
        """The first rows, and the others; None if there are none.

        Args:
            num_rows: The most rows of the first part; None for all.
        """
        if num_rows is None or self.num_rows <= num_rows:
            return self, None
        head, rest = cut(self.inputs, 0, num_rows), cut(self.inputs, num_rows)
        others = Chunk(self.start + num_rows, self.num_rows - num_rows, rest)
        return Chunk(self.start, num_rows, head), others

    def padded(self, batch_size: int) -> list[np.ndarray]:
        """Flat inputs of whole micro-batches, at least one; a view if they fit."""
        rows = max(self.num_rows, 1)
        missing = ceil_div(rows, batch_size) * batch_size - rows
        return [_fill_up(leaf, missing) for leaf in tf.nest.flatten(self.inputs)]


class Feed:
    """Chunks of a source, taken by several threads.

    Args:
        source: The rows.
        block_rows: Rows that are read from the source at a time. A chunk does not
            cross the end of a block, so this should be a multiple of the rows
            that are taken.
        start: Index of the first row to hand out.
    """

    def __init__(self, source: Source, block_rows: int, start: int = 0):
        self._source = source
        self._block_rows = block_rows
        self._blocks = source.batches(block_rows, start)
        self._block: InputBatch | None = None
        self._position = start
        self._lock = threading.Lock()
        self._handed_out = False
        self._is_stopped = False
        self.error: BaseException | None = None

    @property
    def rows_left(self) -> int | None:
        """Rows not taken yet, or None if only known by reading."""
        num_rows = self._source.num_rows
        return None if num_rows is None else max(num_rows - self._position, 0)

    def take(self, most_rows: int) -> Chunk | None:
        """The next chunk, or None after the last one and after an error.

        Args:
            most_rows: The most rows it may hold; at least 1.
        """
        with self._lock:
            chunk = self._chunk_or_none(most_rows)
        if self._has_ended:
            self._close_source()
        return chunk

    def fail(self, error: Exception, chunk: Chunk) -> None:
        """Ends the feed with an error of a chunk that it has handed out."""
        error.add_note(chunk.failed)
        self.error = self.error or error

    @property
    def is_stopped(self) -> bool:
        """Whether the feed was ended before its last row; an error does not count."""
        return self._is_stopped

    def stop(self) -> None:
        """Ends the feed: later calls of `take` return None, and close the source."""
        self._is_stopped = True

    def close(self) -> None:
        """Ends the feed and closes the source; a thread reading it closes it then."""
        self._is_stopped = True
        self._close_source()

    def _close_source(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # its holder comes here next
        try:
            self._block = None
            with contextlib.suppress(Exception):  # how the run went matters more
                close(self._blocks)
        finally:
            self._lock.release()

    def _chunk_or_none(self, most_rows: int) -> Chunk | None:
        try:
            return self._next_chunk(most_rows)
        except BaseException as error:  # noqa: BLE001 - kept for the engine to raise
            first, stop = self._position, self._position + self._block_rows
            error.add_note(f"Raised while rows {first} to {stop} were read.")
            self.error = error
            return None

    @property
    def _has_ended(self) -> bool:
        return self._is_stopped or self.error is not None

    def _next_chunk(self, most_rows: int) -> Chunk | None:
        if self._has_ended:
            return None
        if self._block is None:
            self._block = next(self._blocks, None)
        block, first = self._block, not self._handed_out
        self._handed_out = True
        if block is None:
            example = example_inputs(self._source.spec, 1)
            return Chunk(self._position, 0, example) if first else None
        return self._cut(block, min(most_rows, block.num_rows))

    def _cut(self, block: InputBatch, num_rows: int) -> Chunk:
        self._position = block.start + num_rows
        self._block = None
        if num_rows == block.num_rows:
            return Chunk(block.start, num_rows, block.inputs)
        rest = cut(block.inputs, num_rows)
        self._block = InputBatch(self._position, block.num_rows - num_rows, rest)
        return Chunk(block.start, num_rows, cut(block.inputs, 0, num_rows))


def _fill_up(array: np.ndarray, missing: int) -> np.ndarray:
    if missing == 0:
        return array
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
