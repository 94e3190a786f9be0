"""Rows of a stream, joined and cut into batches of the requested size.

Guarantees:

* Rows keep their order; none is lost or duplicated, whatever the sizes of the user's
  batches. Batches of 0 rows are skipped.
* Memory that may be reused once the next batch is asked for is copied before that, and
  only once: rows of several batches are copied straight into the joined array.
* Other batches are passed on as they are, or cut into views if they are too long.
* Rows of different shapes are never joined: when the shape changes, the rows before
  the change become a short batch, and cutting restarts at the change.
"""

import dataclasses
from collections.abc import Generator

import numpy as np

_PLENTY_BYTES = 2**26


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of every input, in the order of `nests.leaves`.

    Args:
        flat: One array per input, each of shape `(num_rows, ...)`.
        num_rows: Number of rows.
        shared: Which of the arrays lie in memory that may be reused once the next
            rows are read; empty if none does.
    """

    flat: list[np.ndarray]
    num_rows: int
    shared: tuple[bool, ...] = ()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one row of every input."""
        return [array.shape[1:] for array in self.flat]

    def cut(self, start: int, stop: int) -> "Rows":
        """Returns some of the rows as views; returns itself for all rows."""
        if (start, stop) == (0, self.num_rows):
            return self
        flat = [array[start:stop] for array in self.flat]
        return Rows(flat, stop - start, self.shared)

    def kept(self) -> "Rows":
        """Returns the rows in memory that will not change."""
        if not any(self.shared):
            return self
        pairs = zip(self.flat, self.shared, strict=True)
        flat = [array.copy() if shared else array for array, shared in pairs]
        return Rows(flat, self.num_rows)


class RowBuffer:
    """Takes any number of rows at a time from batches of any size.

    Args:
        batches: The user's batches; closed with the buffer.

    Attributes:
        position: Index of the next row that `take` or `skip` will take.
    """

    def __init__(self, batches: Generator[Rows, None, None]) -> None:
        self._batches = batches
        self._head: Rows | None = None
        self._error: Exception | None = None
        self.position = 0

    def fill(self) -> bool:
        """Reads until there is a row to take; False at the end of the input."""
        if self._error is not None:
            raise self._error
        while self._head is None or self._head.num_rows == 0:
            self._head = next(self._batches, None)
            if self._head is None:
                return False
        return True

    def first(self) -> Rows | None:
        """Reads until there is a row to take; returns the batch without taking it."""
        return self._head if self.fill() else None

    def skip(self, start: int) -> None:
        """Reads and drops rows until row `start` is the next one.

        Raises:
            ValueError: If the input has fewer rows.
        """
        while self.position < start:
            if not self.fill():
                raise ValueError(
                    f"Received start={start}, but the input has only {self.position} "
                    "rows."
                )
            self._pop(start - self.position)

    def take(self, size: int) -> Rows | None:
        """Returns the next rows of one shape, at most `size`; None at the end.

        An error in the input is raised after the rows before it have been taken.
        """
        if not self.fill():
            return None
        first = self._pop(size)
        if first.num_rows == size:
            return first.kept()
        joined = _Joined(first, size)
        while joined.missing and self._fill_after_others():
            if self._next_shapes() != first.shapes:
                break
            joined.add(self._pop(joined.missing))
        return joined.rows()

    def _fill_after_others(self) -> bool:
        try:
            return self.fill()
        except Exception as error:
            self._error = error
            return False

    def close(self) -> None:
        """Drops the rows held and closes the user's batches."""
        self._head = None
        self._batches.close()

    def _next_shapes(self) -> list[tuple[int, ...]]:
        return [] if self._head is None else self._head.shapes

    def _pop(self, most: int) -> Rows:
        head = self._head
        assert head is not None, "fill() comes before _pop()"
        count = min(most, head.num_rows)
        self._head = None
        if count < head.num_rows:
            self._head = head.cut(count, head.num_rows)
        self.position += count
        return head.cut(0, count)


class _Joined:
    """Rows of several batches, copied into one array per input as they are read.

    Args:
        first: The rows of the first batch.
        size: The maximum number of rows.
    """

    def __init__(self, first: Rows, size: int) -> None:
        self._size = size
        self._count = 0
        row_bytes = sum(array.nbytes for array in first.flat) // first.num_rows
        most = max(_PLENTY_BYTES // max(row_bytes, 1), 2 * first.num_rows)
        self._flat = _empty_like(first.flat, min(size, most))
        self.add(first)

    @property
    def missing(self) -> int:
        """Number of rows that still fit."""
        return self._size - self._count

    def add(self, rows: Rows) -> None:
        """Copies some rows."""
        stop = self._count + rows.num_rows
        if stop > len(self._flat[0]):
            held = self.rows().flat
            self._flat = _empty_like(held, min(self._size, 2 * stop))
            _fill(self._flat, held, 0)
        _fill(self._flat, rows.flat, self._count)
        self._count = stop

    def rows(self) -> Rows:
        """Returns all rows, as views."""
        return Rows([array[: self._count] for array in self._flat], self._count)


def _empty_like(arrays: list[np.ndarray], num_rows: int) -> list[np.ndarray]:
    return [np.empty((num_rows, *a.shape[1:]), a.dtype) for a in arrays]


def _fill(targets: list[np.ndarray], arrays: list[np.ndarray], at: int) -> None:
    for target, array in zip(targets, arrays, strict=True):
        target[at : at + len(array)] = array
