"""Rows of a stream, joined and cut into batches of the size asked for.

Guarantees:

* Rows keep their order; none is lost or doubled, whatever the sizes of the user's
  batches. Batches of 0 rows are skipped.
* A batch that fits is passed on as it is, one that is too long is cut into views,
  and rows of several batches are joined by one copy.
* Rows of different shapes are never joined: where the shape changes, the rows
  before it leave as a short batch, and cutting starts again at the change.
"""

import dataclasses
from collections.abc import Generator

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of every input, in the order of `nests.leaves`.

    Args:
        flat: One array per input, each of shape `(num_rows, ...)`.
        num_rows: Number of rows.
    """

    flat: list[np.ndarray]
    num_rows: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one row of every input."""
        return [array.shape[1:] for array in self.flat]

    def cut(self, start: int, stop: int) -> "Rows":
        """Returns some of the rows, as views; all of them as they are."""
        if (start, stop) == (0, self.num_rows):
            return self
        return Rows([array[start:stop] for array in self.flat], stop - start)


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
        """Reads on until there is a row to take; False at the end of the input."""
        if self._error is not None:
            raise self._error
        while self._head is None or self._head.num_rows == 0:
            self._head = next(self._batches, None)
            if self._head is None:
                return False
        return True

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

        An error of the input is raised when the rows before it have been taken.
        """
        taken: list[Rows] = []
        missing = size
        while missing and self._fill_behind(taken):
            if taken and self._next_shapes() != taken[0].shapes:
                break
            taken.append(self._pop(missing))
            missing -= taken[-1].num_rows
        return _join(taken)

    def _fill_behind(self, taken: list[Rows]) -> bool:
        try:
            return self.fill()
        except Exception as error:
            if not taken:
                raise
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


def _join(pieces: list[Rows]) -> Rows | None:
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    columns = zip(*(piece.flat for piece in pieces), strict=True)
    joined = [np.concatenate(column) for column in columns]
    return Rows(joined, sum(piece.num_rows for piece in pieces))
