"""The arrays of a zarr store, and their bytes: made by the zarr package, in memory.

The bytes are put on disk by `durable`, since zarr's own store neither waits for the
disk nor gives unfinished files names by which they could be cleaned up.
"""

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.column_names import unique
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import stored_columns

_BYTES_OF_A_STRING = 256
"""A guess."""
_MOST_BYTES = 2**28
"""Of one chunk of each array together, which are held in memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a store, in chunks of a power of two of rows.

    All arrays share the first of the named axes.
    """

    column: Column
    chunk_rows: int
    axes: tuple[str, ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        """What arrays whose chunks are encoded alike have in common."""
        return self.column.row_shape, self.column.dtype, self.chunk_rows

    def chunk_name(self, index: int) -> str:
        """The file of a chunk: `c.5.0` is the one with index 5 along the rows."""
        return ".".join(["c", str(index), *("0" for _ in self.column.row_shape)])


def specs_of(layout: Layout, chunk_bytes: int) -> list[ArraySpec]:
    """The arrays of a store: those of the outputs, then that of the rows' names.

    Chunks have about `chunk_bytes`, less if there are many arrays.
    """
    names = [Column("file", (), np.dtype(object))] if layout.has_names else []
    columns = [*stored_columns(layout), *names]
    chunk_bytes = min(chunk_bytes, _MOST_BYTES // len(columns))
    wanted = [f"{c.name}_{i + 1}" for c in columns for i in range(len(c.row_shape))]
    axes = iter(unique(wanted, ["row", *(column.name for column in columns)]))
    return [
        ArraySpec(
            column,
            _chunk_rows(layout, column, chunk_bytes),
            ("row", *itertools.islice(axes, len(column.row_shape))),
        )
        for column in columns
    ]


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The `zarr.json` of the store."""
    import zarr
    import zarr.storage

    store: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(store), attributes=attributes)
    return store["zarr.json"].to_bytes()


class Encoder:
    """Encodes arrays of one kind; the bytes depend on their rows alone."""

    def __init__(self, spec: ArraySpec):
        import zarr
        import zarr.storage

        self._store: dict[str, Any] = {}
        self._key = spec.chunk_name(0)
        shape = (spec.chunk_rows, *spec.column.row_shape)
        # A missing chunk was never written: it does not mean zeros.
        config: Any = {"write_empty_chunks": True}
        self._array: Any = zarr.create_array(
            zarr.storage.MemoryStore(self._store),
            shape=shape,
            chunks=shape,
            dtype=str if spec.column.is_text else spec.column.dtype,
            fill_value=_fill_value(spec.column),
            # Flat, so that a chunk is one file in an existing folder.
            chunk_key_encoding={"name": "default", "separator": "."},
            config=config,
        )
        self._metadata = json.loads(self._store["zarr.json"].to_bytes())

    def chunk(self, rows: np.ndarray) -> bytes:
        """Returns the bytes of a chunk that begins with `rows`."""
        if len(rows) < self._array.shape[0]:
            part, fill = rows, self._array.fill_value
            rows = np.full(self._array.shape, fill, rows.dtype)
            rows[: len(part)] = part
        self._array[...] = rows
        return self._store.pop(self._key).to_bytes()

    def metadata(self, spec: ArraySpec, num_rows: int) -> dict[str, Any]:
        """What the `zarr.json` of an array says."""
        shape = [int(num_rows), *spec.column.row_shape]  # JSON has no NumPy types
        return {**self._metadata, "shape": shape, "dimension_names": [*spec.axes]}


def _fill_value(column: Column) -> Any:
    """What rows that were never written read as: NaN, if the dtype has it."""
    if column.is_text:
        return ""
    return column.dtype.type(np.nan if column.dtype.kind in "fc" else 0)


def _chunk_rows(layout: Layout, column: Column, chunk_bytes: int) -> int:
    value_bytes = _BYTES_OF_A_STRING if column.is_text else column.dtype.itemsize
    fitting = max(1, chunk_bytes // (value_bytes * math.prod(column.row_shape)))
    rows = 2 ** (fitting.bit_length() - 1)
    return rows if layout.shard is None else min(rows, layout.row_multiple)
