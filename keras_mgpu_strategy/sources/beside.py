"""Marks of the rows of a stream, from where they are read to the results.

A thread that reads rows puts them here; the run takes them in row order, once these
rows have results. So only those of rows in flight are held.
"""

import collections
import threading
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.sources.arrow_values import joined as joined_tables
from keras_mgpu_strategy.sources.ragged_leaf import rows_of_one_length
from keras_mgpu_strategy.types import Ragged, RowMarks, joined


class Beside:
    """Marks of consecutive rows; `schema` is of the columns that are kept, if any.

    Rows are asked for in order: those before the ones asked for are dropped.
    """

    def __init__(self, schema: Any = None) -> None:
        self.schema = schema
        self._lock = threading.Lock()
        self._pieces: collections.deque[tuple[int, int, RowMarks]] = collections.deque()
        self._first = 0

    def restart(self, first_row: int = 0) -> None:
        """Drops everything: rows are read again, those before `first_row` in vain."""
        with self._lock:
            self._first = first_row
            self._pieces.clear()

    def put(self, first_row: int, num_rows: int, marks: RowMarks) -> None:
        """Adds the rows from `first_row` on, which follow those put before."""
        with self._lock:
            if not num_rows or first_row + num_rows <= self._first:
                return
            if self._pieces and self._pieces[-1][1] != first_row:
                raise RuntimeError(
                    f"Rows from {first_row} on were read after those up to "
                    f"{self._pieces[-1][1]}: the input was read twice at once."
                )
            self._pieces.append((first_row, first_row + num_rows, marks))

    def drop_before(self, row: int) -> None:
        """Holds no rows before one, nor takes them from now on."""
        with self._lock:
            self._first = row
            while self._pieces and self._pieces[0][1] <= row:
                self._pieces.popleft()

    def between(self, start: int, stop: int) -> RowMarks:
        """Returns the marks of rows `start` to `stop`."""
        self.drop_before(start)
        with self._lock:
            held = [piece for piece in self._pieces if piece[0] < stop]
        if start < stop and not (held and held[0][0] <= start and stop <= held[-1][1]):
            raise RuntimeError(
                f"Rows {start} to {stop} were asked for, of which only these are held "
                f"beside the results: {[piece[:2] for piece in held]}."
            )
        found = [
            marks.between(max(start - first, 0), min(stop, end) - first)
            for first, end, marks in held
        ]
        kept = None
        if self.schema is not None:
            kept = joined_tables(self.schema, [marks.kept for marks in found])
        return RowMarks(kept=kept, targets=_joined([marks.targets for marks in found]))


def _joined(pieces: Sequence[Any]) -> Any:
    """The targets of consecutive rows; None if they have none."""
    if len(pieces) < 2 or pieces[0] is None:
        return pieces[0] if pieces else None
    return tf.nest.map_structure(lambda *parts: _joined_rows(parts), *pieces)


def _joined_rows(parts: Sequence[Any]) -> Any:
    """Rows of several elements, of which some may have rows of one length."""
    if any(isinstance(part, Ragged) for part in parts):
        parts = [x if isinstance(x, Ragged) else rows_of_one_length(x) for x in parts]
    return joined(parts)
