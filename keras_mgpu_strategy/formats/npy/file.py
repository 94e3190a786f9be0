"""One `.npy` file that is written in pieces, without a memory map.

Guarantees:

* Once complete, its bytes are those of `numpy.save`.
* Nothing is pickled, and nothing read is unpickled.
"""

import math
import pathlib

import numpy as np

from keras_mgpu_strategy.formats.npy.header import header_of, read_header
from keras_mgpu_strategy.outputs.durable import Appender, damaged, file_size
from keras_mgpu_strategy.outputs.interface import Column


class NpyFile:
    """One `.npy` file.

    Args:
        path: The file.
        column: What it holds.
        num_rows: How many rows, or None if known only at the end.
    """

    def __init__(self, path: pathlib.Path, column: Column, num_rows: int | None):
        self._path, self._column, self._num_rows = path, column, num_rows
        self._row_bytes = column.dtype.itemsize * math.prod(column.row_shape)
        self._header = self._header_for(num_rows or 0)
        self._file: Appender | None = None

    def create(self) -> None:
        """Begins a new file.

        Raises:
            OSError: The disk has no room for the rows.
        """
        self._file = Appender(self._path)
        self._begin()

    def reopen(self, kept: int) -> None:
        """Opens a file that was begun, and drops everything after `kept` rows.

        Raises:
            ValueError: The file is missing, too short, or holds other rows.
        """
        file_size(self._path)
        _check_header(self._path, self._column)
        self._file = Appender(self._path, self._offset(kept))
        self._begin()

    def put(self, row: int, array: np.ndarray) -> None:
        """Writes rows, starting at the given row of this file."""
        self._opened.put(array, self._offset(row))

    def sync(self) -> None:
        """Puts on disk what was written."""
        self._opened.sync()

    def complete(self, num_rows: int) -> None:
        """Gives the file its final length and header."""
        self._opened.end_at(self._offset(num_rows))
        self._opened.put(self._header_for(num_rows), 0)
        self._opened.sync()

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._opened.put(self._header, 0)
        if self._num_rows is not None:
            self._opened.reserve(self._offset(self._num_rows))

    def _header_for(self, num_rows: int) -> bytes:
        return header_of((num_rows, *self._column.row_shape), self._column.dtype)

    def _offset(self, row: int) -> int:
        return len(self._header) + row * self._row_bytes

    @property
    def _opened(self) -> Appender:
        assert self._file is not None, "create or reopen comes first"
        return self._file


def _check_header(path: pathlib.Path, column: Column) -> None:
    try:
        with open(path, "rb") as file:
            header = read_header(file)
    except ValueError as error:
        raise damaged(path, f"has no header of a .npy file ({error})") from error
    shape, dtype = header.shape, header.dtype
    if (shape[1:], dtype) != (column.row_shape, column.dtype):
        raise damaged(
            path,
            f"holds {dtype} rows of shape {shape[1:]}, expected {column.dtype} rows "
            f"of shape {column.row_shape}",
        )
