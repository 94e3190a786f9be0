"""Rows in preallocated memory."""

import numpy as np

from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.rows import Rows, stored_columns


class RowBuffer:
    """Copies of consecutive rows.

    Args:
        layout: What the rows hold.
        num_rows: The most that it can hold; memory is used as they come.
    """

    def __init__(self, layout: Layout, num_rows: int):
        self._arrays = [
            np.empty((num_rows, *column.row_shape), column.dtype)
            for column in stored_columns(layout)
        ]
        self._names: list[str] | None = [] if layout.has_names else None
        self._missing = np.zeros(num_rows, bool)

    def put(self, offset: int, rows: Rows) -> None:
        """Copies rows to a place, after which nothing is kept."""
        place = slice(offset, offset + rows.stop - rows.start)
        self._missing[place] = False if rows.missing is None else rows.missing
        for array, values in zip(self._arrays, rows.arrays, strict=True):
            array[place] = values
        if self._names is not None:
            self._names[offset:] = rows.names or []

    def rows(self, row: int, start: int, stop: int) -> Rows:
        """Returns views of the rows at places `start` to `stop`.

        Args:
            row: Index of the row at place 0.
            start: First place.
            stop: One past the last place.
        """
        missing = self._missing[start:stop]
        return Rows(
            row + start,
            row + stop,
            [array[start:stop] for array in self._arrays],
            None if self._names is None else self._names[start:stop],
            missing if missing.any() else None,
        )
