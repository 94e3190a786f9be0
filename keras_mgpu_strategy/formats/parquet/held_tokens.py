"""Rows that differ in length, copied one after another into memory that grows."""

from typing import Any

import numpy as np

from keras_mgpu_strategy.types import Ragged


class HeldTokens:
    """At most `num_rows` rows; put and read by slices, as an array is."""

    def __init__(self, num_rows: int, token_shape: Any, dtype: np.dtype):
        self._values = np.empty((0, *token_shape), dtype)
        self._offsets = np.zeros(num_rows + 1, np.int64)

    def __setitem__(self, place: slice, rows: Ragged) -> None:
        """Copies rows to a place, after which nothing is kept."""
        rows = rows.packed()
        first = int(self._offsets[place.start])
        stop = first + len(rows.values)
        if stop > len(self._values):
            grown = max(stop, 2 * len(self._values))
            values = np.empty((grown, *self._values.shape[1:]), self._values.dtype)
            values[:first] = self._values[:first]
            self._values = values
        self._values[first:stop] = rows.values
        self._offsets[place.start + 1 : place.stop + 1] = first + rows.offsets[1:]

    def __getitem__(self, place: slice) -> Ragged:
        """Rows, as views."""
        return Ragged(self._values, self._offsets[place.start : place.stop + 1])
