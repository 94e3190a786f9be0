"""What a zarr store holds, as bytes: made by the zarr package, in memory.

The bytes are put on disk by `durable`, since zarr's own store neither waits for the
disk nor has names for unfinished files that could be cleaned up.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_mgpu_strategy.sinks.interface import Layout
from keras_mgpu_strategy.sinks.rows import stored_columns

_BYTES_OF_A_NAME = 64
"""A guess."""


@dataclasses.dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a store.

    Args:
        name: Of the array.
        row_shape: Shape of one row's value.
        dtype: Of its values; None for strings.
        chunk_rows: Rows of a chunk, a power of two.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype | None
    chunk_rows: int


def specs_of(layout: Layout, chunk_bytes: int) -> list[ArraySpec]:
    """The arrays of a store: those of the outputs, then that of the rows' names.

    Args:
        layout: What the store holds.
        chunk_bytes: Size of a chunk, about.
    """
    columns = [(c.name, c.row_shape, c.dtype) for c in stored_columns(layout)]
    names = [("file", (), None)] if layout.has_names else []
    return [
        ArraySpec(name, shape, dtype, _chunk_rows(layout, shape, dtype, chunk_bytes))
        for name, shape, dtype in columns + names
    ]


def array_metadata(spec: ArraySpec, num_rows: int) -> bytes:
    """The `zarr.json` of an array."""
    store: dict[str, Any] = {}
    _array_in(store, spec, num_rows)
    return store["zarr.json"].to_bytes()


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The `zarr.json` of the store."""
    import zarr
    import zarr.storage

    store: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(store), attributes=attributes)
    return store["zarr.json"].to_bytes()


class ChunkEncoder:
    """Turns rows into the bytes of a chunk, which depend on the rows alone."""

    def __init__(self, spec: ArraySpec):
        self._store: dict[str, Any] = {}
        self._array = _array_in(self._store, spec, spec.chunk_rows)
        self._key = chunk_name(spec, 0)
        fill = "" if spec.dtype is None else _fill_value(spec.dtype)
        shape = (spec.chunk_rows, *spec.row_shape)
        self._block = np.full(shape, fill, spec.dtype or object)
        self._fill = fill

    def encode(self, rows: np.ndarray) -> bytes:
        """Returns the bytes of a chunk that begins with `rows`."""
        self._block[: len(rows)] = rows
        self._block[len(rows) :] = self._fill
        self._array[...] = self._block
        return self._store.pop(self._key).to_bytes()


def chunk_name(spec: ArraySpec, index: int) -> str:
    """The file of a chunk: `c.5.0` is the one with index 5 along the rows."""
    return ".".join(["c", str(index), *("0" for _ in spec.row_shape)])


def _array_in(store: dict[str, Any], spec: ArraySpec, num_rows: int) -> Any:
    import zarr
    import zarr.storage

    # A chunk that is not there was never written: it does not mean zeros.
    config: Any = {"write_empty_chunks": True}
    return zarr.create_array(
        zarr.storage.MemoryStore(store),
        shape=(num_rows, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        dtype=str if spec.dtype is None else spec.dtype,
        fill_value="" if spec.dtype is None else _fill_value(spec.dtype),
        # Flat, so that a chunk is one file in a folder that is there already.
        chunk_key_encoding={"name": "default", "separator": "."},
        config=config,
    )


def _fill_value(dtype: np.dtype) -> Any:
    """What rows read as that were never written: NaN, where there is one."""
    return dtype.type(np.nan) if dtype.kind in "fc" else dtype.type(0)


def _chunk_rows(
    layout: Layout, shape: tuple[int, ...], dtype: np.dtype | None, chunk_bytes: int
) -> int:
    value_bytes = _BYTES_OF_A_NAME if dtype is None else dtype.itemsize
    fitting = max(1, chunk_bytes // (value_bytes * math.prod(shape)))
    rows = 2 ** (fitting.bit_length() - 1)
    return rows if layout.shard is None else min(rows, layout.row_multiple)
