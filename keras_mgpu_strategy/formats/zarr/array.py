"""The arrays of a zarr store, filled row by row.

zarr makes the bytes and `durable` writes them: zarr's own store does not wait for the
disk. A chunk on disk is always whole, old or new. Only the chunks of the sink's own
rows are touched; others may write the rest at the same time.
"""

import functools
import itertools
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs import durable
from keras_mgpu_strategy.outputs.column_names import unique
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.outputs.strict_json import is_count

_BYTES_OF_A_STRING = 256
"""A guess."""
_MOST_BYTES = 2**28
"""Of one chunk of each array together, which are held in memory."""


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The `zarr.json` of the store."""
    import zarr
    import zarr.storage

    store: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(store), attributes=attributes)
    return store["zarr.json"].to_bytes()


class Encoder:
    """Encodes chunks of one shape and dtype; the bytes depend on their rows alone."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        import zarr
        import zarr.storage

        self.shape, self.dtype = shape, dtype
        self._store: dict[str, Any] = {}
        is_text = dtype.kind == "O"
        # Rows that were never written read as NaN, if the dtype has it.
        fill = "" if is_text else dtype.type(np.nan if dtype.kind in "fc" else 0)
        # A missing chunk was never written: it does not mean zeros.
        config: Any = {"write_empty_chunks": True}
        self._array: Any = zarr.create_array(
            zarr.storage.MemoryStore(self._store),
            shape=shape,
            chunks=shape,
            dtype=str if is_text else dtype,
            fill_value=fill,
            # Flat, so that a chunk is one file in an existing folder.
            chunk_key_encoding={"name": "default", "separator": "."},
            config=config,
        )
        self._metadata = json.loads(self._store["zarr.json"].to_bytes())

    def name(self, index: int) -> str:
        """The file of a chunk: `c.5.0` is the one with index 5 along the rows."""
        return f"c.{index}{'.0' * (len(self.shape) - 1)}"

    def chunk(self, rows: np.ndarray) -> bytes:
        """Returns the bytes of a chunk that begins with `rows`."""
        if len(rows) < self.shape[0]:
            part, fill = rows, self._array.fill_value
            rows = np.full(self.shape, fill, rows.dtype)
            rows[: len(part)] = part
        self._array[...] = rows
        return self._store.pop(self.name(0)).to_bytes()

    def metadata(self, axes: Sequence[str], num_rows: int) -> dict[str, Any]:
        """What the `zarr.json` of an array says."""
        shape = [int(num_rows), *self.shape[1:]]  # JSON has no NumPy types
        return {**self._metadata, "shape": shape, "dimension_names": [*axes]}


def writers_of(
    path: pathlib.Path, layout: Layout, chunk_bytes: int, tag: str
) -> list["ArrayWriter"]:
    """Arrays of the outputs, then of row names, in chunks of about `chunk_bytes`."""
    names = [Column("file", (), np.dtype(object))] if layout.has_names else []
    columns = [*stored_columns(layout), *names]
    chunk_bytes = min(chunk_bytes, _MOST_BYTES // len(columns))
    wanted = [f"{c.name}_{i + 1}" for c in columns for i in range(len(c.row_shape))]
    axes = iter(unique(wanted, ["row", *(column.name for column in columns)]))
    # zarr takes milliseconds to make an array, and there may be thousands.
    encoder_of = functools.cache(Encoder)
    found = []
    for column in columns:
        rows = _chunk_rows(layout, column, chunk_bytes)
        encoder = encoder_of((rows, *column.row_shape), column.dtype)
        own = ("row", *itertools.islice(axes, len(column.row_shape)))
        found.append(ArrayWriter(path / column.name, encoder, own, layout, tag))
    return found


def _chunk_rows(layout: Layout, column: Column, chunk_bytes: int) -> int:
    """A power of two."""
    value_bytes = _BYTES_OF_A_STRING if column.is_text else column.dtype.itemsize
    fitting = max(1, chunk_bytes // (value_bytes * math.prod(column.row_shape)))
    rows = 2 ** (fitting.bit_length() - 1)
    return rows if layout.shard is None else min(rows, layout.row_multiple)


class ArrayWriter:
    """Writes the rows of one array of a store; `tag` is of the shard."""

    def __init__(
        self,
        folder: pathlib.Path,
        encoder: Encoder,
        axes: Sequence[str],
        layout: Layout,
        tag: str,
    ):
        self._folder, self._metadata = folder, folder / "zarr.json"
        self._encoder, self._axes = encoder, axes
        self._layout, self._tag = layout, tag
        self.chunk_rows = encoder.shape[0]
        self._rows = np.empty(encoder.shape, encoder.dtype)

    def create(self) -> None:
        """Begins or joins the array; the caller must sync the folder around it."""
        durable.make_folder(self._folder, sync=False)
        if self._layout.shard is not None and self._metadata.is_file():
            self._check_metadata()
        else:
            self.resize(self._layout.first_row)
        self._drop(self._layout.first_row)

    def reopen(self, stop: int) -> None:
        """Resumes after the rows before `stop`; an error if some are not there."""
        if not self._metadata.is_file():
            raise durable.damaged(self._metadata, "is missing")
        self._check_metadata()
        size, first = self.chunk_rows, self._layout.first_row
        for index in range(first // size, -(-stop // size)):
            if not self._chunk(index).is_file():
                raise durable.damaged(self._chunk(index), "is missing")
        if stop % size:
            self._rows[: stop % size] = self._read(stop - stop % size, stop)
        durable.scratch_of(self._metadata, self._tag).unlink(missing_ok=True)
        self._drop(stop)

    def put(self, start: int, rows: np.ndarray) -> None:
        """Takes rows of one chunk, and writes it if they are its last."""
        offset = start % self.chunk_rows
        self._rows[offset : offset + len(rows)] = rows
        if offset + len(rows) == self.chunk_rows:
            self._write(start // self.chunk_rows, self.chunk_rows)

    def save(self, stop: int) -> None:
        """Puts the rows before `stop`, and how many there are, on disk."""
        index, count = divmod(stop, self.chunk_rows)
        if count:
            self._write(index, count)
        if self._layout.num_rows is None:
            self.resize(stop)

    def resize(self, stop: int) -> None:
        """Writes how many rows there are: `stop` if unknown before."""
        content = json.dumps(self._described(stop), indent=2)
        durable.write_whole(self._metadata, content.encode(), self._tag)

    def _described(self, num_rows: int) -> dict[str, Any]:
        known = self._layout.num_rows
        return self._encoder.metadata(self._axes, num_rows if known is None else known)

    def _write(self, index: int, count: int) -> None:
        durable.write_whole(self._chunk(index), self._encoder.chunk(self._rows[:count]))

    def _chunk(self, index: int) -> pathlib.Path:
        return self._folder / self._encoder.name(index)

    def _drop(self, row: int) -> None:
        """Removes own chunks that begin at or after `row`, and unfinished ones."""
        size, stop = self.chunk_rows, self._layout.stop_row
        for path in self._folder.iterdir():
            match = re.fullmatch(r"(\.?)c\.(\d+)(\.0)*(\.partial)?", path.name)
            if match is None:
                continue
            start = int(match[2]) * size
            is_own = start >= self._layout.first_row and (stop is None or start < stop)
            if is_own and (match[1] or start >= row):
                durable.remove(path)

    def _check_metadata(self) -> None:
        try:
            found = json.loads(self._metadata.read_bytes())
            num_rows = found["shape"][0]
            if not is_count(num_rows):
                raise ValueError(f"it has {num_rows!r:.40} rows")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise durable.damaged(
                self._metadata, f"cannot be read ({error})"
            ) from error
        expected = self._described(num_rows)
        if found != expected:
            raise durable.damaged(
                self._metadata, f"describes another array: {found}, not {expected}"
            )

    def _read(self, start: int, stop: int) -> Any:
        import zarr

        try:
            array: Any = zarr.open_array(self._folder, mode="r")
            return array[start:stop]
        except (OSError, ValueError, RuntimeError) as error:
            raise durable.damaged(self._folder, f"cannot be read ({error})") from error
