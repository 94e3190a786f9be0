"""Rows of unequal length, read ahead and joined to windows."""

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.marks import marks_of, no_marks
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.system.closing import close, closing
from keras_mgpu_strategy.types import InputBatch, Ragged, Source, cut, joined

MOST_BYTES = 64 << 20
_FIRST_PIECE_ROWS = 256
_PIECES, _MOST_SECONDS = 16, 0.01


def row_lengths(rows: InputBatch) -> np.ndarray:
    """How many tokens each row has."""
    flat = tf.nest.flatten(rows.inputs)
    found = next((leaf.lengths for leaf in flat if isinstance(leaf, Ragged)), None)
    if found is None:
        raise ValueError(
            "Received pad=, but the model declares the length of its rows, so there is "
            "nothing to pad. Leave out pad=, or make a model with "
            "keras.Input((None, ...))."
        )
    return found


class FirstWindow(Wrapped):
    """A source whose first window is read when it is made.

    `rows` are some of it, with one that is shorter than others if there is one; None if
    there are none, or once they are read again. Later windows are read ahead in pieces
    of `piece_rows`, fewer than a window if reading takes long.
    """

    def __init__(self, source: Source, window: int, row_bytes: tuple[int, int]) -> None:
        super().__init__(source)
        self.row_bytes = row_bytes  # of inputs and outputs: of a row, and of a token
        began = time.perf_counter()
        rest = source.batches(min(_FIRST_PIECE_ROWS, window))
        self._pieces = pieces = Pieces(rest, row_bytes)
        is_at_end = not pieces.fill(window + 1)  # one row more, if any
        num_rows = pieces.num_rows
        seconds = (time.perf_counter() - began) * window / max(num_rows, 1)
        self.lengths = pieces.next_lengths(window)
        self.is_all = is_at_end and len(self.lengths) == num_rows  # no further window
        self.rows = self._with_a_short_row() if num_rows else None
        mean = max(int(_bytes_of(self.lengths, row_bytes).mean()), 1) if num_rows else 1
        is_slow = seconds > _MOST_SECONDS  # so joining pieces is worth it
        by_time = max(window // _PIECES, _FIRST_PIECE_ROWS) if is_slow else window
        self.piece_rows = min(max(MOST_BYTES // mean, 1), window, by_time)

    def _with_a_short_row(self) -> InputBatch:
        """The first piece with a row that is shorter than another, or the first one."""
        place = int((self.lengths < self.lengths.max()).argmax())
        held = self._pieces.held
        return next(piece for piece in held if place < piece.start + piece.num_rows)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields the rows read ahead first, if they are among those asked for."""
        held, rest = self._pieces.held, self._pieces.rest
        self._pieces, self.rows = Pieces(iter(()), self.row_bytes), None
        can_reopen = self.num_rows is not None
        stop = held[-1].start + held[-1].num_rows if held else 0
        if not held or (can_reopen and start >= stop):
            close(rest)
            return self._source.batches(batch_size, start)
        # To read again would lose what is kept beside rows read ahead.
        if can_reopen and marks_of(self._source) is no_marks:
            close(rest)
            is_all = stop == self.num_rows
            rest = iter(()) if is_all else self._source.batches(batch_size, stop)
        return _from(start, held, rest)


def _from(
    start: int, held: deque[InputBatch], rest: Iterator[InputBatch]
) -> Iterator[InputBatch]:
    """The pieces of both from a row on."""
    with closing(rest):
        while (piece := held.popleft() if held else next(rest, None)) is not None:
            skipped = max(start - piece.start, 0)
            if skipped < piece.num_rows:
                yield _part(piece, skipped, piece.num_rows)


def _part(rows: InputBatch, start: int, stop: int) -> InputBatch:
    return InputBatch(rows.start + start, stop - start, cut(rows.inputs, start, stop))


def _bytes_of(lengths: np.ndarray, row_bytes: tuple[int, int]) -> np.ndarray:
    per_row, per_token = row_bytes
    return per_row + per_token * lengths


class Pieces:
    """Rows read from `rest` and `held` until they are taken, window by window."""

    def __init__(self, rest: Iterator[InputBatch], row_bytes: tuple[int, int]) -> None:
        self.rest = rest
        self.held: deque[InputBatch] = deque()
        self.num_rows = self._bytes = 0  # of those held
        self._row_bytes = row_bytes
        self._error: Exception | None = None

    def close(self) -> None:
        """Ends reading."""
        self.held.clear()
        close(self.rest)

    def take(self, window: int) -> InputBatch | None:
        """The next rows, as many as fit into a window of so many; None at the end."""
        self.fill(window)
        return self._taken(len(self.next_lengths(window))) if self.held else None

    def next_lengths(self, window: int) -> np.ndarray:
        """The tokens of each row held that fits into a window: at least one, if any."""
        each = [row_lengths(piece) for piece in self.held]
        lengths = np.concatenate([np.zeros(0, np.int64), *each])[:window]
        sums = np.cumsum(_bytes_of(lengths, self._row_bytes))
        return lengths[: max(int(np.searchsorted(sums, MOST_BYTES, side="right")), 1)]

    def read_ahead(self, most: int) -> None:
        """Reads some of the next window, while one is run; errors come with it."""
        if self._error is None:
            try:
                self.fill(most)
            except Exception as error:  # noqa: BLE001 - raised by the next `take`
                self._error = error

    def fill(self, most: int) -> bool:
        """Reads until there are so many rows, or too many bytes; False at the end."""
        if self._error is not None:
            raise self._error
        while self.num_rows < most and self._bytes <= MOST_BYTES:
            piece = next(self.rest, None)
            if piece is None:
                return False
            self.held.append(piece)
            self.num_rows += piece.num_rows
            self._bytes += self._num_bytes(piece)
        return True

    def _num_bytes(self, piece: InputBatch) -> int:
        return int(_bytes_of(row_lengths(piece), self._row_bytes).sum())

    def _taken(self, num_rows: int) -> InputBatch:
        taken, left = [], num_rows
        while left:
            piece = self.held.popleft()
            count = min(left, piece.num_rows)
            if count < piece.num_rows:
                self.held.appendleft(_part(piece, count, piece.num_rows))
            taken.append(_part(piece, 0, count))
            left -= count
        self.num_rows -= num_rows
        self._bytes = sum(map(self._num_bytes, self.held))
        if len(taken) == 1:
            return taken[0]
        nests = [piece.inputs for piece in taken]
        inputs = tf.nest.map_structure(lambda *parts: joined(parts), *nests)
        return InputBatch(taken[0].start, num_rows, inputs)
