"""One `.npy` file of strings that is written in pieces.

NumPy gives all strings of an array one width, known only after the last row. The file
has room for the longest string so far, and more. When a longer one comes, and at the
end, it is rewritten, a block at a time.

Guarantees:

* Once complete, its bytes are those of `numpy.save` for an array of `bytes`.
* At every moment it is a file of all rows written so far: the old one or the new one.
* The rows are rewritten once each time that the longest string doubles.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from keras_mgpu_strategy.formats.npy.file import NpyFile
from keras_mgpu_strategy.formats.npy.header import header_of, read_blocks, read_header
from keras_mgpu_strategy.outputs.durable import (
    damaged,
    file_size,
    replacing,
    scratch_of,
)
from keras_mgpu_strategy.outputs.interface import Column

_LEAST_WIDTH = 16


class NpyTexts:
    """One `.npy` file of strings; see `NpyFile`, whose methods it has.

    Args:
        path: The file.
        column: What it holds.
        num_rows: How many rows, or None if known only at the end.
    """

    def __init__(self, path: pathlib.Path, column: Column, num_rows: int | None):
        self._path, self._column, self._num_rows = path, column, num_rows
        self._width, self._longest = _LEAST_WIDTH, 0
        self._file = self._of_width(_LEAST_WIDTH)

    def create(self) -> None:
        """Begins a new file."""
        scratch_of(self._path).unlink(missing_ok=True)
        self._file.create()

    def reopen(self, kept: int) -> None:
        """Opens a file that was begun, and drops everything after `kept` rows.

        Raises:
            ValueError: The file is missing, too short, or holds other rows.
        """
        file_size(self._path)
        scratch_of(self._path).unlink(missing_ok=True)
        self._width = _width_in(self._path)
        self._file = self._of_width(self._width)
        self._file.reopen(kept)
        blocks = _blocks(self._path, kept)
        self._longest = max((_longest(block) for block in blocks), default=0)

    def put(self, row: int, array: np.ndarray) -> None:
        """Writes rows, starting at the given row of this file, at its end."""
        longest = max(map(len, array.reshape(-1).tolist()), default=0)
        if longest > self._width:
            self._widen(row, 1 << (longest - 1).bit_length())
        self._file.put(row, array.astype(f"S{self._width}"))
        self._longest = max(self._longest, longest)

    def sync(self) -> None:
        """Puts on disk what was written."""
        self._file.sync()

    def complete(self, num_rows: int) -> None:
        """Gives the file its final width, length and header."""
        if self._width != max(self._longest, 1):
            self._widen(num_rows, max(self._longest, 1))
        self._file.complete(num_rows)

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        self._file.close()

    def _widen(self, num_rows: int, width: int) -> None:
        """Rewrites the rows with another width; a narrower one must be wide enough."""
        column = self._column_of(width)
        with replacing(self._path) as file:
            file.write(header_of((num_rows, *column.row_shape), column.dtype))
            for block in _blocks(self._path, num_rows):
                file.write(block.astype(column.dtype).tobytes())
        self._file.close()
        self._width, self._file = width, self._of_width(width)
        self._file.reopen(num_rows)

    def _of_width(self, width: int) -> NpyFile:
        return NpyFile(self._path, self._column_of(width), self._num_rows)

    def _column_of(self, width: int) -> Column:
        return dataclasses.replace(self._column, dtype=np.dtype(f"S{width}"))


def _blocks(path: pathlib.Path, num_rows: int) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        yield from read_blocks(file, read_header(file), num_rows)


def _longest(block: np.ndarray) -> int:
    return int(np.char.str_len(block).max(initial=0))


def _width_in(path: pathlib.Path) -> int:
    try:
        with open(path, "rb") as file:
            dtype = read_header(file).dtype
    except ValueError as error:
        raise damaged(path, f"has no header of a .npy file ({error})") from error
    if dtype.kind != "S":
        raise damaged(path, f"holds {dtype} rows, expected strings")
    return dtype.itemsize
