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
    """One `.npy` file of `num_rows` rows; None if known only at the end.

    `kept` rows of an existing file stay; None makes a new one. `begin` comes next.
    """

    def __init__(
        self,
        path: pathlib.Path,
        column: Column,
        num_rows: int | None,
        kept: int | None,
    ):
        self._path, self._num_rows, self._row_shape = path, num_rows, column.row_shape
        self._open(column.dtype, kept)

    def begin(self) -> None:
        """Writes the header; an `OSError` if the disk has no room for the rows."""
        self._file.put(self._header(self._num_rows or 0), 0)
        if self._num_rows is not None:
            self._file.reserve(self._offset(self._num_rows))

    def put(self, row: int, array: np.ndarray) -> None:
        """Writes rows, starting at the given row of this file."""
        self._file.put(array, self._offset(row))

    def sync(self) -> None:
        """Puts on disk what was written."""
        self._file.sync()

    def complete(self, num_rows: int) -> None:
        """Gives the file its final length and header."""
        self._file.end_at(self._offset(num_rows))
        self._file.put(self._header(num_rows), 0)
        self._file.sync()

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        self._file.close()

    def _open(self, dtype: np.dtype, kept: int | None) -> None:
        self._dtype = dtype
        self._row_bytes = dtype.itemsize * math.prod(self._row_shape)
        self._start = len(self._header(0))
        if kept is not None:
            self._check_header()
        stop = None if kept is None else self._offset(kept)
        self._file = durable.Appender(self._path, stop)

    def _check_header(self) -> None:
        header = _begun_header(self._path)
        shape, dtype = header.shape[1:], header.dtype
        if (shape, dtype) != (self._row_shape, self._dtype):
            raise durable.damaged(
                self._path,
                f"holds {dtype} rows of shape {shape}, expected {self._dtype} rows of "
                f"shape {self._row_shape}",
            )

    def _header(self, num_rows: int) -> bytes:
        return npy_header.header_of((num_rows, *self._row_shape), self._dtype)

    def _offset(self, row: int) -> int:
        return self._start + row * self._row_bytes


class NpyTexts(NpyFile):
    """A `.npy` file of `bytes`, atomically rewritten each time the longest doubles."""

    def __init__(
        self,
        path: pathlib.Path,
        column: Column,
        num_rows: int | None,
        kept: int | None,
    ):
        dtype = np.dtype(f"S{_LEAST_WIDTH}")
        if kept is not None:
            dtype = _begun_header(path).dtype
        if dtype.kind != "S":
            raise durable.damaged(path, f"holds {dtype} rows, expected strings")
        durable.scratch_of(path).unlink(missing_ok=True)
        self._longest, self._kept = 0, kept or 0
        super().__init__(path, dataclasses.replace(column, dtype=dtype), num_rows, kept)

    def begin(self) -> None:
        """Writes the header, and finds the longest string among the kept rows."""
        super().begin()
        for block in npy_header.read_blocks(self._path, self._kept):
            longest = int(np.char.str_len(block).max(initial=0))
            self._longest = max(self._longest, longest)

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
        self._open(dtype, num_rows)
        super().begin()


def _begun_header(path: pathlib.Path) -> npy_header.NpyHeader:
    durable.file_size(path)  # refuses a link, or no file
    try:
        return npy_header.header_in(path)
    except ValueError as error:
        raise durable.damaged(
            path, f"has no header of a .npy file ({error})"
        ) from error
