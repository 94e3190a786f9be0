"""Values beside the rows of a stream, from where they are read to the results.

A thread that reads rows puts them here; the run takes them in row order, once these
rows have results. So only rows in flight are held.
"""

import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Piece = TypeVar("Piece")


class Beside(Generic[Piece]):
    """Pieces of consecutive rows; `cut` returns rows of one, counted from its first.

    Rows are asked for in order: those before the ones asked for are dropped.
    """

    def __init__(self, cut: Callable[[Piece, int, int], Piece]) -> None:
        self._cut = cut
        self._lock = threading.Lock()
        self._pieces: collections.deque[tuple[int, int, Piece]] = collections.deque()
        self._first = 0

    def restart(self, first_row: int = 0) -> None:
        """Drops everything: rows are read again, those before `first_row` in vain."""
        with self._lock:
            self._first = first_row
            self._pieces.clear()

    def put(self, first_row: int, num_rows: int, piece: Piece) -> None:
        """Adds the rows from `first_row` on, which follow those put before."""
        with self._lock:
            if not num_rows or first_row + num_rows <= self._first:
                return
            if self._pieces and self._pieces[-1][1] != first_row:
                raise RuntimeError(
                    f"Rows from {first_row} on were read after those up to "
                    f"{self._pieces[-1][1]}: the input was read twice at once."
                )
            self._pieces.append((first_row, first_row + num_rows, piece))

    def drop_before(self, row: int) -> None:
        """Holds no rows before one, nor takes them from now on."""
        with self._lock:
            self._first = row
            while self._pieces and self._pieces[0][1] <= row:
                self._pieces.popleft()

    def between(self, start: int, stop: int) -> list[Piece]:
        """Returns the pieces of rows `start` to `stop`, cut to them, in order."""
        self.drop_before(start)
        with self._lock:
            held = [piece for piece in self._pieces if piece[0] < stop]
        if start < stop and not (held and held[0][0] <= start and stop <= held[-1][1]):
            raise RuntimeError(
                f"Rows {start} to {stop} were asked for, of which only these are held "
                f"beside the results: {[piece[:2] for piece in held]}."
            )
        return [
            self._cut(piece, max(start - first, 0), min(stop, end) - first)
            for first, end, piece in held
        ]
