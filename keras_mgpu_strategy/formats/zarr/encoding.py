"""What a zarr store holds, as bytes: made by the zarr package, in memory.

The bytes are put on disk by `durable`, since zarr's own store neither waits for the
disk nor gives unfinished files names by which they could be cleaned up.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.column_names import unique
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.rows import stored_columns

_BYTES_OF_A_STRING = 256
"""A guess."""
_MOST_BYTES = 2**28
"""Of one chunk of each array together, which are held in memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a store.

    Args:
        name: Of the array.
        row_shape: Shape of one row's value.
        dtype: Of its values; None for strings.
        chunk_rows: Rows of a chunk, a power of two.
        axes: Names of its axes, the first of which all arrays share.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype | None
    chunk_rows: int
    axes: tuple[str, ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        """What chunks of the same form have in common."""
        return self.row_shape, self.dtype, self.chunk_rows


def specs_of(layout: Layout, chunk_bytes: int) -> list[ArraySpec]:
    """The arrays of a store: those of the outputs, then that of the rows' names.

    Args:
        layout: What the store holds.
        chunk_bytes: Approximate size of a chunk; less if there are many arrays.
    """
    columns: list[tuple[str, tuple[int, ...], np.dtype | None]] = [
        (column.name, column.row_shape, None if column.is_text else column.dtype)
        for column in stored_columns(layout)
    ]
    names = [("file", (), None)] if layout.has_names else []
    chunk_bytes = min(chunk_bytes, _MOST_BYTES // len(columns + names))
    axes = _axes(columns + names)
    return [
        ArraySpec(
            name,
            shape,
            dtype,
            _chunk_rows(layout, shape, dtype, chunk_bytes),
            axes[name],
        )
        for name, shape, dtype in columns + names
    ]


def _axes(arrays: list[Any]) -> dict[str, tuple[str, ...]]:
    """Names of axes: "row", then each array's own ones, which no array is named."""
    wanted = {n: [f"{n}_{i}" for i in range(1, len(s) + 1)] for n, s, _ in arrays}
    flat = [axis for axes in wanted.values() for axis in axes]
    free = iter(unique(flat, ["row", *wanted]))
    return {name: ("row", *(next(free) for _ in axes)) for name, axes in wanted.items()}


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
        self._store: dict[str, Any] = {}
        self._array = _array_in(self._store, spec)
        self._metadata = json.loads(self._store["zarr.json"].to_bytes())
        self._key = chunk_name(spec, 0)

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
        own = {"shape": [int(num_rows), *spec.row_shape]}  # JSON has no NumPy types
        return {**self._metadata, **own, "dimension_names": [*spec.axes]}


def encoders(specs: Iterable[ArraySpec]) -> list[Encoder]:
    """Returns an encoder for each array; those of one kind share one.

    zarr takes milliseconds to make an array, and there may be thousands.
    """
    found: dict[Any, Encoder] = {}
    for spec in specs:
        if spec.kind not in found:
            found[spec.kind] = Encoder(spec)
    return [found[spec.kind] for spec in specs]


def chunk_name(spec: ArraySpec, index: int) -> str:
    """The file of a chunk: `c.5.0` is the one with index 5 along the rows."""
    return ".".join(["c", str(index), *("0" for _ in spec.row_shape)])


def _array_in(store: dict[str, Any], spec: ArraySpec) -> Any:
    """An array of one chunk."""
    import zarr
    import zarr.storage

    # A missing chunk was never written: it does not mean zeros.
    config: Any = {"write_empty_chunks": True}
    return zarr.create_array(
        zarr.storage.MemoryStore(store),
        shape=(spec.chunk_rows, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        dtype=str if spec.dtype is None else spec.dtype,
        fill_value="" if spec.dtype is None else _fill_value(spec.dtype),
        # Flat, so that a chunk is one file in an existing folder.
        chunk_key_encoding={"name": "default", "separator": "."},
        config=config,
    )


def _fill_value(dtype: np.dtype) -> Any:
    """What rows that were never written read as: NaN, if the dtype has it."""
    return dtype.type(np.nan) if dtype.kind in "fc" else dtype.type(0)


def _chunk_rows(
    layout: Layout, shape: tuple[int, ...], dtype: np.dtype | None, chunk_bytes: int
) -> int:
    value_bytes = _BYTES_OF_A_STRING if dtype is None else dtype.itemsize
    fitting = max(1, chunk_bytes // (value_bytes * math.prod(shape)))
    rows = 2 ** (fitting.bit_length() - 1)
    return rows if layout.shard is None else min(rows, layout.row_multiple)
