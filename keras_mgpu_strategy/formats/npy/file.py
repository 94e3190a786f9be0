"""One `.npy` file, written in pieces without a memory map, as `numpy.save` would."""

import dataclasses
import math
import pathlib

import numpy as np

from keras_mgpu_strategy.formats.npy import header as npy_header
from keras_mgpu_strategy.outputs import durable
from keras_mgpu_strategy.outputs.interface import Column

_LEAST_WIDTH = 16


class NpyFile:
    """One `.npy` file of `num_rows` rows; None if known only at the end."""

    def __init__(self, path: pathlib.Path, column: Column, num_rows: int | None):
        self._path, self._num_rows, self._row_shape = path, num_rows, column.row_shape
        self._file: durable.Appender | None = None
        self._hold(column.dtype)

    def create(self) -> None:
        """Begins a new file; an `OSError` if the disk has no room for the rows."""
        self._file = durable.Appender(self._path)
        self._begin()

    def reopen(self, kept: int) -> None:
        """Drops everything after `kept` rows; a `ValueError` if they are not there."""
        header = _begun_header(self._path)
        shape, dtype = header.shape[1:], header.dtype
        if (shape, dtype) != (self._row_shape, self._dtype):
            raise durable.damaged(
                self._path,
                f"holds {dtype} rows of shape {shape}, expected {self._dtype} rows of "
                f"shape {self._row_shape}",
            )
        self._file = durable.Appender(self._path, self._offset(kept))
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
        self._opened.put(self._header(num_rows), 0)
        self._opened.sync()

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._opened.put(self._header(self._num_rows or 0), 0)
        if self._num_rows is not None:
            self._opened.reserve(self._offset(self._num_rows))

    def _hold(self, dtype: np.dtype) -> None:
        self._dtype, self._row_bytes = (
            dtype,
            dtype.itemsize * math.prod(self._row_shape),
        )
        self._start = len(self._header(0))

    def _header(self, num_rows: int) -> bytes:
        return npy_header.header_of((num_rows, *self._row_shape), self._dtype)

    def _offset(self, row: int) -> int:
        return self._start + row * self._row_bytes

    @property
    def _opened(self) -> durable.Appender:
        assert self._file is not None, "create or reopen comes first"
        return self._file


class NpyTexts(NpyFile):
    """A `.npy` file of `bytes`, atomically rewritten each time the longest doubles."""

    def __init__(self, path: pathlib.Path, column: Column, num_rows: int | None):
        column = dataclasses.replace(column, dtype=np.dtype(f"S{_LEAST_WIDTH}"))
        super().__init__(path, column, num_rows)
        self._longest = 0

    def create(self) -> None:
        """Begins a new file."""
        durable.scratch_of(self._path).unlink(missing_ok=True)
        super().create()

    def reopen(self, kept: int) -> None:
        """Opens a file that was begun, see `NpyFile.reopen`."""
        dtype = _begun_header(self._path).dtype
        if dtype.kind != "S":
            raise durable.damaged(self._path, f"holds {dtype} rows, expected strings")
        self._hold(dtype)
        durable.scratch_of(self._path).unlink(missing_ok=True)
        super().reopen(kept)
        lengths = map(np.char.str_len, npy_header.read_blocks(self._path, kept))
        self._longest = max((int(n.max(initial=0)) for n in lengths), default=0)

    def put(self, row: int, array: np.ndarray) -> None:
        """Writes rows, starting at the given row of this file, at its end."""
        longest = max(map(len, array.reshape(-1).tolist()), default=0)
        if longest > self._dtype.itemsize:
            self._widen(row, 1 << (longest - 1).bit_length())
        super().put(row, array.astype(self._dtype))
        self._longest = max(self._longest, longest)

    def complete(self, num_rows: int) -> None:
        """Gives the file its final width, length and header."""
        self._widen(num_rows, max(self._longest, 1))
        super().complete(num_rows)

    def _widen(self, num_rows: int, width: int) -> None:
        """Rewrites the rows with another width; a narrower one must be wide enough."""
        dtype = np.dtype(f"S{width}")
        if dtype == self._dtype:
            return
        with durable.replacing(self._path) as file:
            file.write(npy_header.header_of((num_rows, *self._row_shape), dtype))
            for block in npy_header.read_blocks(self._path, num_rows):
                file.write(block.astype(dtype).tobytes())
        self.close()
        self._hold(dtype)
        super().reopen(num_rows)


def _begun_header(path: pathlib.Path) -> npy_header.NpyHeader:
    durable.file_size(path)  # refuses a link, or no file
    try:
        return npy_header.header_in(path)
    except ValueError as error:
        raise durable.damaged(
            path, f"has no header of a .npy file ({error})"
        ) from error
