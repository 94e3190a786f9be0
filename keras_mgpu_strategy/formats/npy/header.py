"""The header of a `.npy` file, checked against the file. Loads no TensorFlow.

NumPy reads headers by parsing Python literals: hostile ones cause errors of many kinds,
a lack of memory, or arithmetic that overflows with a warning.

Guarantees:

* A header is accepted only if it declares plain values, not Python objects, and the
  file has room for all of them. Everything else is a `ValueError`.
* Nothing is unpickled, and no memory is allocated for what a header claims.
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
    """What a `.npy` file's header says.

    Args:
        shape: Of the array.
        is_fortran: Whether its values are in Fortran order.
        dtype: Of its values.
        offset: Where they begin.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    offset: int

    @property
    def num_bytes(self) -> int:
        """Length of a file with this header and all its values."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO | Any) -> NpyHeader:
    """Reads a header from the start of a `.npy` file.

    Args:
        file: Open at its start; left just after the header.

    Raises:
        ValueError: It has no usable header.
    """
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


def header_of(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The header that `numpy.save` writes, of the same length for any number of rows.

    NumPy leaves room in it for the number of rows to grow.
    """
    content = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        # NumPy's own integers would be written in a form that no reader accepts.
        "shape": tuple(map(int, shape)),
    }
    np.lib.format.write_array_header_1_0(content, fields)
    return content.getvalue()


def read_blocks(
    file: BinaryIO | Any, header: NpyHeader, num_rows: int
) -> Iterator[np.ndarray]:
    """Yields the first rows of a `.npy` file, some at a time.

    Args:
        file: The file, opened without a map.
        header: Its header.
        num_rows: How many rows.
    """
    row_shape = header.shape[1:]
    row_values = math.prod(row_shape)
    block_rows = max(_BLOCK_BYTES // max(row_values * header.dtype.itemsize, 1), 1)
    file.seek(header.offset)
    for start in range(0, num_rows, block_rows):
        count = min(block_rows, num_rows - start)
        values = np.fromfile(file, header.dtype, count * row_values)
        yield values.reshape(count, *row_shape)


def check_length(header: NpyHeader, size: int) -> None:
    """Checks that a file has room for what its header claims.

    Args:
        header: Of the file.
        size: Its length in bytes.

    Raises:
        ValueError: It does not.
    """
    if size < header.num_bytes:
        raise ValueError(
            f"it is cut short: {size} bytes, expected {header.num_bytes} for "
            f"{header.dtype} of shape {header.shape}."
        )


def open_mapped(path: str | os.PathLike[str]) -> np.memmap:
    """Maps the array in a `.npy` file into memory, read-only.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a `.npy` file of plain values, or is truncated.
    """
    with open(path, "rb") as file:
        header = read_header(file)
        check_length(header, os.fstat(file.fileno()).st_size)
    return np.memmap(
        path,
        header.dtype,
        mode="r",
        offset=header.offset,
        shape=header.shape,
        order="F" if header.is_fortran else "C",
    )


def _check_shape(shape: tuple[Any, ...], dtype: np.dtype) -> None:
    sizes = [size for size in shape if type(size) is int and size >= 0]
    if len(sizes) < len(shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"its header has the shape {shape!r:.80}.")
    num_bytes = math.prod(sizes) * dtype.itemsize
    # NumPy multiplies the other axes even without rows.
    counted = math.prod(size for size in sizes if size) * max(dtype.itemsize, 1)
    if counted > sys.maxsize or (num_bytes == 0 and sizes and sizes[0] > _MOST_EMPTY):
        raise ValueError(f"its header claims more than can be: shape {shape!r:.80}.")
