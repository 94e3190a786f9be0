"""The header of a `.npy` file, checked against the file. Loads no TensorFlow.

Plain values, for all of which the file has room, or a `ValueError`, whatever a hostile
header holds. Nothing is unpickled, and no memory is allocated for mere claims.
"""

import dataclasses
import io
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_AXES = 32
_BLOCK_BYTES = 2**24
_MOST_EMPTY = 2**32
"""The most rows without a value, which take no room in the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a header says; the values begin at byte `offset`."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    offset: int

    @property
    def num_bytes(self) -> int:
        """Length of a file with this header and all its values."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def check_length(self, size: int) -> None:
        """Raises a `ValueError` if a file of `size` bytes lacks some values."""
        if size < self.num_bytes:
            raise ValueError(
                f"it is cut short: {size} bytes, expected {self.num_bytes} for "
                f"{self.dtype} of shape {self.shape}."
            )

    def map(self, path: str | os.PathLike[str], start: int = 0) -> np.memmap:
        """Maps the array into memory, read-only; the header is at byte `start`."""
        order, offset = "F" if self.is_fortran else "C", start + self.offset
        return np.memmap(path, self.dtype, "r", offset, self.shape, order)


def read_header(file: BinaryIO | Any) -> NpyHeader:
    """Reads a header, leaving the file just after it; a `ValueError` if unusable."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _READERS:
            raise ValueError(
                f"its format has version {version}, expected 1.0 or 2.0, as NumPy "
                "writes for plain numbers and strings."
            )
        shape, is_fortran, dtype = _READERS[version](file)
    except (OSError, ValueError):
        raise
    except Exception as error:  # from Python's parser, a lack of memory included
        kind = type(error).__name__
        raise ValueError(f"its header cannot be parsed ({kind}: {error}).") from error
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, which are never unpickled. Expected numbers, "
            "bools or strings: convert the array with .astype(...)."
        )
    _check_shape(shape, dtype)
    return NpyHeader(shape, is_fortran, dtype, file.tell())


def header_in(path: str | os.PathLike[str]) -> NpyHeader:
    """Reads the header of a file, see `read_header`."""
    with open(path, "rb") as file:
        return read_header(file)


def header_of(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The header that `numpy.save` writes, of one length for any number of rows."""
    content = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        # NumPy's own integers would be written in a form that no reader accepts.
        "shape": tuple(map(int, shape)),
    }
    np.lib.format.write_array_header_1_0(content, fields)
    return content.getvalue()


def read_blocks(path: os.PathLike[str], num_rows: int) -> Iterator[np.ndarray]:
    """Yields the first rows of a file, some at a time, without mapping it."""
    with open(path, "rb") as file:
        header = read_header(file)
        row_values = math.prod(header.shape[1:])
        row_bytes = max(row_values * header.dtype.itemsize, 1)
        block_rows = max(_BLOCK_BYTES // row_bytes, 1)
        for start in range(0, num_rows, block_rows):
            count = min(block_rows, num_rows - start)
            values = np.fromfile(file, header.dtype, count * row_values)
            yield values.reshape(count, *header.shape[1:])


def open_mapped(path: str | os.PathLike[str]) -> np.memmap:
    """Maps a `.npy` file of plain values read-only; a `ValueError` if it is not one."""
    header = header_in(path)
    header.check_length(os.path.getsize(path))
    return header.map(path)


def _check_shape(shape: tuple[Any, ...], dtype: np.dtype) -> None:
    sizes = [size for size in shape if type(size) is int and size >= 0]
    if len(sizes) < len(shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"its header has the shape {shape!r:.80}.")
    num_bytes = math.prod(sizes) * dtype.itemsize
    # NumPy multiplies the other axes even without rows.
    counted = math.prod(size for size in sizes if size) * max(dtype.itemsize, 1)
    if counted > sys.maxsize or (num_bytes == 0 and sizes and sizes[0] > _MOST_EMPTY):
        raise ValueError(f"its header claims more than can be: shape {shape!r:.80}.")
