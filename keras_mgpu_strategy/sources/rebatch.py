"""Rows of a stream or a table, joined and cut into batches of the requested size.

Rows keep their order; none is lost or duplicated. Memory that may be reused once the
next batch is asked for is copied before, and only once. Rows of different shapes are
never joined: a change ends a batch, which may be short. Rows of unequal length are
cut, but not joined.
"""

import dataclasses
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.sources.nests import pack
from keras_mgpu_strategy.types import NO_MARKS, InputBatch, Nest, Ragged, RowMarks

_PLENTY_BYTES = 2**26


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of every input; memory of those `shared` may be reused.

    `marks` are those of the rows of a piece, until they are cut.
    """

    flat: list[Any]
    num_rows: int
    shared: tuple[bool, ...] = ()
    marks: RowMarks = NO_MARKS

    @property
    def shapes(self) -> list[tuple[Any, ...]]:
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
    """Takes any number of rows at a time from batches of any size, and closes them.

    Marks of the rows are put `beside` them, if they are wanted.
    """

    def __init__(
        self,
        pieces: Generator[Rows, None, None],
        position: int = 0,
        beside: Beside | None = None,
    ) -> None:
        self._pieces, self._beside = pieces, beside
        self._head: Rows | None = None
        self._error: Exception | None = None
        self.position = position
        self.is_closed = False
        if beside is not None:
            beside.restart(position)

    def fill(self) -> bool:
        """Reads until there is a row to take; False at the end of the input."""
        if self._error is not None:
            raise self._error
        while self._head is None or self._head.num_rows == 0:
            self._head = next(self._pieces, None)
            if self._head is None:
                return False
            if self._beside is not None:
                self._beside.put(self.position, self._head.num_rows, self._head.marks)
        return True

    def first(self) -> Rows | None:
        """Reads until there is a row to take; returns the batch without taking it."""
        return self._head if self.fill() else None

    def skip(self, start: int) -> None:
        """Reads and drops rows until row `start`, which must exist, is the next one."""
        while self.position < start:
            if not self.fill():
                raise ValueError(
                    f"Received start={start}, but the input has only {self.position} "
                    "rows."
                )
            self._pop(start - self.position)

    def batches(self, size: int, structure: Nest) -> Iterator[InputBatch]:
        """Yields the next rows of one shape, at most `size`; then raises errors."""
        first = self.position
        while (rows := self._take(size)) is not None:
            yield InputBatch(first, rows.num_rows, pack(structure, rows.flat))
            first = self.position

    def close(self) -> None:
        """Drops the rows held and closes the user's batches."""
        self.is_closed, self._head = True, None
        self._pieces.close()

    def _take(self, size: int) -> Rows | None:
        if not self.fill():
            return None
        first = self._pop(size)
        # Rows of unequal length are joined where they are padded, by the window.
        is_ragged = any(isinstance(leaf, Ragged) for leaf in first.flat)
        if first.num_rows == size or is_ragged:
            return first.kept()
        joined = _Joined(first, size)
        while joined.num_rows < size and self._fill_after_others():
            if self._head is None or self._head.shapes != first.shapes:
                break
            joined.add(self._pop(size - joined.num_rows))
        return joined.rows()

    def _fill_after_others(self) -> bool:
        try:
            return self.fill()
        except Exception as error:
            self._error = error
            return False

    def _pop(self, most: int) -> Rows:
        head = self._head
        assert head is not None, "fill() comes before _pop()"
        count = min(most, head.num_rows)
        is_all = count == head.num_rows
        self._head = None if is_all else head.cut(count, head.num_rows)
        self.position += count
        return head.cut(0, count)


class _Joined:
    def __init__(self, first: Rows, size: int) -> None:
        self._size = size
        self.num_rows = 0
        row_bytes = sum(array.nbytes for array in first.flat) // first.num_rows
        most = max(_PLENTY_BYTES // max(row_bytes, 1), 2 * first.num_rows)
        self._flat = _empty_like(first.flat, min(size, most))
        self.add(first)

    def add(self, rows: Rows) -> None:
        start, stop = self.num_rows, self.num_rows + rows.num_rows
        if stop > len(self._flat[0]):
            held = self._flat
            self._flat = _empty_like(held, min(self._size, 2 * stop))
            for target, array in zip(self._flat, held, strict=True):
                target[:start] = array[:start]
        for target, array in zip(self._flat, rows.flat, strict=True):
            target[start:stop] = array
        self.num_rows = stop

    def rows(self) -> Rows:
        return Rows([array[: self.num_rows] for array in self._flat], self.num_rows)


def _empty_like(arrays: list[np.ndarray], num_rows: int) -> list[np.ndarray]:
    return [np.empty((num_rows, *a.shape[1:]), a.dtype) for a in arrays]
