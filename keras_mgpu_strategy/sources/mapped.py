"""Arrays in files, mapped into memory.

Guarantee: the memory that a process appears to use does not grow with what it has read,
as it does with a plain memory map.
"""

import mmap

import numpy as np

_MOST_BYTES = 2**24


class MappedArray:
    """An array-like over a memory map, read-only.

    Args:
        array: The memory map.

    Attributes:
        shape: Shape of the array.
        dtype: Dtype of the array.
    """

    def __init__(self, array: np.memmap) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._array = np.asarray(array)
        self._map = array.base if isinstance(array.base, mmap.mmap) else None
        self._num_bytes = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Returns rows as a view, which stays valid."""
        chunk = self._array[rows]
        self._num_bytes += chunk.nbytes
        if self._num_bytes > _MOST_BYTES:
            self._num_bytes = 0
            self._let_go()
        return chunk

    def _let_go(self) -> None:
        # Pages in use are mapped again when they are touched, from the page cache.
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
