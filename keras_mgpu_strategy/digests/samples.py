"""Digests of values, cheap if there are many: of all of them, or of samples.

Up to 256 MiB are read in full; more by samples, including the first and last values.
Only values, dtype and shape count, not the layout in memory.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

MOST_BYTES = 2**28  # what is looked at as a whole
_NUM_SAMPLES, _SAMPLE_BYTES = 128, 2**15
_BLOCK_BYTES = 2**22
_STRING_BYTES = 64  # a guess


def sample_places(size: int) -> Iterator[tuple[int, int]]:
    """Yields where samples of that many bytes begin and end, in order."""
    last = max(size - _SAMPLE_BYTES, 0)
    for index in range(_NUM_SAMPLES):
        start = index * last // (_NUM_SAMPLES - 1)
        yield start, min(start + _SAMPLE_BYTES, size)


def is_large(num_bytes: int) -> bool:
    """Whether that many bytes are read by samples."""
    return num_bytes > MOST_BYTES


def digest_of_rows(
    read: Callable[[int, int], np.ndarray], num_rows: int, row_bytes: int
) -> str:
    """Returns a digest of what `read(start, stop)` returns; `row_bytes` 0: strings."""
    sha = hashlib.sha256()
    row_bytes = row_bytes or _STRING_BYTES
    whole = num_rows * row_bytes
    if is_large(whole):
        places = [(a // row_bytes, -(-b // row_bytes)) for a, b in sample_places(whole)]
    else:
        step = max(_BLOCK_BYTES // row_bytes, 1)
        starts = range(0, num_rows, step)
        places = [(start, min(start + step, num_rows)) for start in starts]
    for start, stop in places:
        sha.update(_bytes_of(read(start, stop)))
    kind = "samples of " if is_large(whole) else ""
    return f"{kind}{num_rows} rows, sha256 {sha.hexdigest()[:16]}"


def digest_of_array(array: np.ndarray) -> str:
    """Returns a digest of the values of an array, with its dtype and shape."""
    rows = array if array.ndim else array[np.newaxis]
    row_bytes = 0 if array.dtype.hasobject else rows.nbytes // max(len(rows), 1)
    values = digest_of_rows(lambda a, b: rows[a:b], len(rows), row_bytes)
    return f"{array.dtype.str} {array.shape} {values}"


def _bytes_of(rows: np.ndarray) -> bytes:
    if rows.dtype.hasobject:
        return repr(rows.tolist()).encode("utf-8", "backslashreplace")
    return np.ascontiguousarray(rows).tobytes()
