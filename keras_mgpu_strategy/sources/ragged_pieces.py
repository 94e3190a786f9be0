"""Rows of unequal length, read ahead and joined to windows."""

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.marks import marks_of, no_marks
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.system.closing import close
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

    Args:
        lengths: The tokens of its rows.
        is_all: Whether there are no further rows.
        rows: Some of them, with one that is shorter than others if there is one; None
            if there are none.
        piece_rows: How many rows to read at a time: a window, or less if that
            takes long, to be read while others are run.
    """

    def __init__(self, source: Source, window: int, row_bytes: tuple[int, int]) -> None:
        super().__init__(source)
        began = time.perf_counter()
        self._rest = source.batches(min(_FIRST_PIECE_ROWS, window))
        self._held: list[InputBatch] = []
        lengths, rows, num_bytes, piece = [np.zeros(0, np.int64)], 0, 0, None
        while rows <= window and num_bytes <= MOST_BYTES:  # one row more, if any
            if (piece := next(self._rest, None)) is None:
                break
            self._held.append(piece)
            lengths.append(row_lengths(piece))
            rows += piece.num_rows
            num_bytes += int(_bytes_of(lengths[-1], row_bytes).sum())
        known = np.concatenate(lengths)[:window]
        self.lengths = known[: fitting(known, row_bytes)]
        self.is_all = piece is None and len(self.lengths) == rows
        self.rows = self._with_a_short_row() if self._held else None
        mean = max(int(_bytes_of(self.lengths, row_bytes).mean()), 1) if rows else 1
        seconds = (time.perf_counter() - began) * window / max(rows, 1)
        is_slow = seconds > _MOST_SECONDS  # so joining pieces is worth it
        by_time = max(window // _PIECES, _FIRST_PIECE_ROWS) if is_slow else window
        self.piece_rows = min(max(MOST_BYTES // mean, 1), window, by_time)

    def _with_a_short_row(self) -> InputBatch:
        """The first piece with a row that is shorter than another, or the first one."""
        longest = self.lengths.max(initial=0)
        stops = np.cumsum([piece.num_rows for piece in self._held])
        place = int((self.lengths < longest).argmax()) if len(self.lengths) else 0
        return self._held[int(np.searchsorted(stops, place, "right"))]

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields the rows read ahead first, if they are among those asked for."""
        held, self._held, self.rows = self._held, [], None
        rest, self._rest = self._rest, iter(())
        stop = held[-1].start + held[-1].num_rows if held else 0
        if held and (self.num_rows is None or start < stop):
            return self._continued(held, rest, batch_size, start)
        close(rest)
        return self._source.batches(batch_size, start)

    def _continued(
        self,
        held: list[InputBatch],
        rest: Iterator[InputBatch],
        batch_size: int,
        start: int,
    ) -> Iterator[InputBatch]:
        try:
            stop = 0
            for piece in held:
                stop = piece.start + piece.num_rows
                yield from _from(piece, start)
            # To read again would lose what is kept beside rows read ahead.
            if self.num_rows is not None and marks_of(self._source) is no_marks:
                close(rest)
                rest = iter(())
                if stop < self.num_rows:
                    rest = self._source.batches(batch_size, stop)
            for piece in rest:
                yield from _from(piece, start)
        finally:
            close(rest)


def _from(piece: InputBatch, start: int) -> Iterator[InputBatch]:
    skipped = max(start - piece.start, 0)
    if skipped == 0:
        yield piece
    elif skipped < piece.num_rows:
        inputs = cut(piece.inputs, skipped)
        yield InputBatch(piece.start + skipped, piece.num_rows - skipped, inputs)


def _bytes_of(lengths: np.ndarray, row_bytes: tuple[int, int]) -> np.ndarray:
    per_row, per_token = row_bytes
    return per_row + per_token * lengths


def fitting(lengths: np.ndarray, row_bytes: tuple[int, int]) -> int:
    """How many of these rows a window has: as many as fit, at least one."""
    sums = np.cumsum(_bytes_of(lengths, row_bytes))
    return max(int(np.searchsorted(sums, MOST_BYTES, side="right")), 1)


class Pieces:
    """Reads the windows of a source from the one on that begins at `start`."""

    def __init__(
        self,
        source: Source,
        window: int,
        piece_rows: int,
        row_bytes: tuple[int, int],
        start: int,
    ) -> None:
        self._window = window
        self._row_bytes = row_bytes
        self._start = start
        self._position = start - start % window
        self._held: deque[InputBatch] = deque()
        self._num_rows = self._bytes = 0  # of those held
        self._error: Exception | None = None
        self._pieces = source.batches(piece_rows, self._position)

    def __enter__(self) -> None:
        """Begins reading."""

    def __exit__(self, *_: object) -> None:
        """Ends reading."""
        self._held.clear()
        close(self._pieces)

    def next_window(self) -> InputBatch | None:
        """The rows of the next window; None at the end."""
        while (rows := self._next()) is not None:
            stop = rows.start + rows.num_rows
            if stop > self._start:
                assert rows.start >= self._start, "a run starts at a window"
                return rows
        return None

    def read_ahead(self, share: float) -> None:
        """Reads some of the next window, while this one is run; errors come with it."""
        if self._error is None:
            try:
                self._fill(int(share * self._window))
            except Exception as error:  # noqa: BLE001 - raised by `next_window`
                self._error = error

    def _next(self) -> InputBatch | None:
        most = self._window - self._position % self._window
        self._fill(most)
        if not self._held:
            return None
        lengths = np.concatenate([row_lengths(piece) for piece in self._held])
        return self._take(fitting(lengths[:most], self._row_bytes))

    def _fill(self, most: int) -> None:
        """Reads until there are so many rows, or too many bytes."""
        if self._error is not None:
            raise self._error
        while self._num_rows < most and self._bytes <= MOST_BYTES:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._held.append(piece)
            self._num_rows += piece.num_rows
            self._bytes += self._num_bytes(piece)

    def _num_bytes(self, piece: InputBatch) -> int:
        return int(_bytes_of(row_lengths(piece), self._row_bytes).sum())

    def _take(self, num_rows: int) -> InputBatch:
        taken, left = [], num_rows
        while left:
            piece = self._held.popleft()
            if piece.num_rows > left:
                rest = InputBatch(
                    piece.start + left,
                    piece.num_rows - left,
                    cut(piece.inputs, left),
                )
                self._held.appendleft(rest)
                piece = InputBatch(piece.start, left, cut(piece.inputs, 0, left))
            taken.append(piece)
            left -= piece.num_rows
        self._position += num_rows
        self._num_rows -= num_rows
        self._bytes = sum(map(self._num_bytes, self._held))
        first = taken[0]
        if len(taken) == 1:
            return first
        parts = zip(*(tf.nest.flatten(piece.inputs) for piece in taken), strict=True)
        inputs = tf.nest.pack_sequence_as(first.inputs, [*map(joined, parts)])
        return InputBatch(first.start, num_rows, inputs)
