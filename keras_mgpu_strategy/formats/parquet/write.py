"""Results in a folder of `.parquet` files, which pandas, polars and DuckDB read.

`part-00000.parquet` and so on, in a shard `part-00003-of-00008-00000.parquet`. The
layout alone (about 64 MiB) says which rows a part holds. A part appears when it is
complete; until then its rows are in memory and in a hidden file.
"""

import dataclasses
import math
import pathlib

from keras_mgpu_strategy.formats.parquet.arrow_table import HeldRows, table_of
from keras_mgpu_strategy.formats.parquet.kept_rows import as_stored, stored_kept
from keras_mgpu_strategy.formats.parquet.parts import Parts
from keras_mgpu_strategy.outputs import refusals
from keras_mgpu_strategy.outputs.durable import make_folder, remove
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.sources.arrow_values import row_bytes
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import HostBatch

_MOST_ROWS = 2**20
_BYTES_OF_A_NUMBER = 8
_BYTES_OF_A_NAME, _BYTES_OF_A_STRING = 64, 256
"""Guesses."""


@dataclasses.dataclass(frozen=True, slots=True)
class ParquetFormat:
    """Makes folders of `.parquet` files; see `FileFormat`."""

    part_bytes: int = 64 * 2**20
    """Approximate size of the values in a part."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing."""
        refusals.check_kinds(layout, ".parquet", "biufO")
        refusals.check_widths(layout, ".parquet")
        import_extra("pyarrow", "parquet", "A .parquet output")
        if (kept := stored_kept(layout)) is not None:
            outputs = [column.name for column in layout.columns]
            refusals.check_kept_names(kept.names, outputs)

    def create(self, path: pathlib.Path, layout: Layout) -> "ParquetSink":
        """Begins a new folder at `path`; a shard replaces only its own parts."""
        self.check(layout)
        if layout.shard is None:
            remove(path)
        make_folder(path)
        parts = Parts(path, layout, self._part_rows(layout))
        return ParquetSink(parts, layout, None, layout.first_row)

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> "ParquetSink":
        """Resumes a folder that `create` began, after the rows of `mark`."""
        parts = Parts(path, layout, self._part_rows(layout))
        row = row_of(path, layout, mark)
        return ParquetSink(parts, layout, parts.tail(row), row)

    def _part_rows(self, layout: Layout) -> int:
        """Rows of a part: a power of two, from the layout alone."""
        num_bytes = _BYTES_OF_A_NUMBER + _BYTES_OF_A_NAME * layout.has_names
        if layout.kept is not None:
            num_bytes += row_bytes(layout.kept)
        for column in stored_columns(layout):
            size = _BYTES_OF_A_STRING if column.is_text else column.dtype.itemsize
            num_bytes += size * math.prod(_guessed(column, layout))
        fitting = max(1, self.part_bytes // num_bytes)
        return min(_MOST_ROWS, 2 ** (fitting.bit_length() - 1))


def _guessed(column: Column, layout: Layout) -> list[int]:
    """The shape of a row, where its length is guessed if rows differ in it."""
    return [layout.row_tokens if x is None else x for x in column.row_shape]


class ParquetSink(RowSink):
    """See the module; made by `ParquetFormat`."""

    def __init__(
        self, parts: Parts, layout: Layout, tail: HostBatch | None, num_written: int
    ):
        super().__init__(layout, num_written)
        self._parts, self._spool = parts, parts.spool
        self._buffer = HeldRows(layout, parts.capacity)
        self._num_spooled = 0
        if tail is None:
            self._spool.clear()
        else:
            self._spool.restart(table_of(layout, tail))
            self._buffer.put(0, tail)
            self._num_spooled = tail.stop - tail.start
        parts.drop(parts.index_of(num_written))

    def _fitting(self, rows: HostBatch) -> HostBatch:
        kept = as_stored(self._layout, rows.marks.kept)
        marks = dataclasses.replace(rows.marks, kept=kept)
        rows = dataclasses.replace(rows, marks=marks)
        return refusals.decoded(self._layout, rows, ".parquet")

    def _limit(self) -> int:
        return self._parts.start_of(self._parts.index_of(self._num_written) + 1)

    def _append(self, rows: HostBatch) -> None:
        index = self._parts.index_of(rows.start)
        self._buffer.put(rows.start - self._parts.start_of(index), rows)
        if rows.stop == self._limit():
            self._write_part(index, rows.stop)

    def _sync(self) -> dict[str, int]:
        start = self._parts.start_of(self._parts.index_of(self._num_written))
        num_held = self._num_written - start
        if num_held > self._num_spooled:
            new = self._buffer.rows(start, self._num_spooled, num_held)
            self._spool.add(table_of(self._layout, new))
            self._num_spooled = num_held
        return {}

    def _complete(self) -> None:
        index = self._parts.index_of(self._num_written)
        # Without any row there is still one part: it records the columns.
        if self._num_written > self._parts.start_of(index) or index == 0:
            self._write_part(index, self._num_written)

    def _release(self) -> None:
        self._spool.close()

    def _write_part(self, index: int, stop: int) -> None:
        start = self._parts.start_of(index)
        rows = self._buffer.rows(start, 0, stop - start)
        self._parts.write(index, table_of(self._layout, rows))
        self._spool.clear()
        self._num_spooled = 0
