"""Hands out the rows of a source as chunks, in order, to any number of threads.

Without rows there is still one chunk, of 0 rows and a placeholder, which shows the
structure of results. An error is kept until the rows before it are delivered. Ending
never waits: the garbage collector may do it, even in a thread that is reading.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import example_inputs
from keras_mgpu_strategy.system.closing import close
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import InputBatch, Nest, Source, cut


def split(batch: InputBatch, num_rows: int) -> tuple[InputBatch, InputBatch | None]:
    """At most the first `num_rows` rows, and the others; None if there are none."""
    if batch.num_rows <= num_rows:
        return batch, None
    head, rest = cut(batch.inputs, 0, num_rows), cut(batch.inputs, num_rows)
    others = InputBatch(batch.start + num_rows, batch.num_rows - num_rows, rest)
    return InputBatch(batch.start, num_rows, head), others


def padded(chunk: InputBatch, batch_size: int) -> list[np.ndarray]:
    """Flat inputs of whole micro-batches, padded by copies of the last row."""
    rows = max(chunk.num_rows, 1)
    missing = ceil_div(rows, batch_size) * batch_size - rows
    leaves = tf.nest.flatten(chunk.inputs)
    if not missing:
        return leaves
    return [np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for a in leaves]


@contextlib.contextmanager
def noted(*chunks: InputBatch) -> Iterator[None]:
    """Adds to an error which rows ran when it was raised."""
    try:
        yield
    except BaseException as error:
        for chunk in chunks:
            stop = chunk.start + chunk.num_rows
            error.add_note(f"Raised while rows {chunk.start} to {stop} ran.")
        raise


class Feed:
    """Chunks of a source, for several threads; none crosses a block of `block_rows`.

    `rows_of` gives the rows that a number of rows stands for, if they differ in length.
    """

    def __init__(
        self,
        source: Source,
        block_rows: int,
        start: int = 0,
        rows_of: Callable[[Nest, int], int] = lambda inputs, rows: rows,
    ):
        self._source = source
        self._block_rows = block_rows
        self._rows_of = rows_of
        self._blocks = source.batches(block_rows, start)
        self._block: InputBatch | None = None
        self.position = start  # one past the last row that was taken
        self._lock = threading.Lock()
        self._handed_out = False
        self.is_stopped = False  # before its last row, but not by an error
        self.error: BaseException | None = None  # what ended the feed

    @property
    def rows_left(self) -> int | None:
        """Rows not taken yet, or None if only known by reading."""
        num_rows = self._source.num_rows
        return None if num_rows is None else max(num_rows - self.position, 0)

    def take(self, most_rows: int) -> InputBatch | None:
        """The next chunk of at most so many rows; None after the last or an error."""
        with self._lock:
            try:
                chunk = None if self._has_ended else self._next_chunk(most_rows)
            except BaseException as error:  # noqa: BLE001 - raised by the engine
                first, stop = self.position, self.position + self._block_rows
                error.add_note(f"Raised while rows {first} to {stop} were read.")
                chunk, self.error = None, error
        if self._has_ended:
            self._close_source()
        return chunk

    def stop(self) -> None:
        """Ends the feed: later calls of `take` return None, and close the source."""
        self.is_stopped = True

    def close(self) -> None:
        """Ends the feed and closes the source; a thread reading it closes it then."""
        self.is_stopped = True
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

    @property
    def _has_ended(self) -> bool:
        return self.is_stopped or self.error is not None

    def _next_chunk(self, most_rows: int) -> InputBatch | None:
        if self._block is None:
            self._block = next(self._blocks, None)
        is_first, self._handed_out = not self._handed_out, True
        if self._block is None:
            example = example_inputs(self._source.spec, 1)
            return InputBatch(self.position, 0, example) if is_first else None
        rows = self._rows_of(self._block.inputs, most_rows)
        chunk, self._block = split(self._block, rows)
        self.position = chunk.start + chunk.num_rows
        return chunk
