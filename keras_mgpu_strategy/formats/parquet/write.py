"""Results in a folder of `.parquet` files, which pandas, polars and DuckDB read.

`part-00000.parquet` and so on, in a shard `part-00003-of-00008-00000.parquet`. The
layout alone (about 64 MiB) says which rows a part holds. A part appears when it is
complete; until then its rows are in memory and in a hidden file.
"""

import dataclasses
import math
import pathlib
from typing import Any

from keras_mgpu_strategy.formats.parquet.arrow_table import (
    schema_of,
    stored_kept,
    table_of,
)
from keras_mgpu_strategy.formats.parquet.parts import Parts
from keras_mgpu_strategy.outputs import refusals
from keras_mgpu_strategy.outputs.durable import make_folder, remove
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.sources.arrow_values import joined, row_bytes
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
            shape = [layout.row_tokens if x is None else x for x in column.row_shape]
            num_bytes += size * math.prod(shape)
        fitting = max(1, self.part_bytes // num_bytes)
        return min(_MOST_ROWS, 2 ** (fitting.bit_length() - 1))


class ParquetSink(RowSink):
    """See the module; made by `ParquetFormat`."""

    def __init__(self, parts: Parts, layout: Layout, tail: Any, num_written: int):
        super().__init__(layout, num_written)
        self._parts, self._spool, self._schema = parts, parts.spool, schema_of(layout)
        # Tables of the rows that fill no part yet: those in the spool, and later ones.
        self._spooled, self._new = [], []
        if tail is None:
            self._spool.clear()
        else:
            self._spool.restart(tail)
            self._spooled.append(tail)
        parts.drop(parts.index_of(num_written))

    def _fitting(self, rows: HostBatch) -> HostBatch:
        if (kept := rows.marks.kept) is not None:
            kept = kept.cast(stored_kept(self._layout))
            marks = dataclasses.replace(rows.marks, kept=kept)
            rows = dataclasses.replace(rows, marks=marks)
        return refusals.decoded(self._layout, rows, ".parquet")

    def _limit(self) -> int:
        return self._parts.start_of(self._parts.index_of(self._num_written) + 1)

    def _append(self, rows: HostBatch) -> None:
        table = table_of(self._schema, rows)
        if rows.stop == self._limit():
            self._write_part([*self._spooled, *self._new, table])
        else:
            self._new.append(table)

    def _sync(self) -> dict[str, int]:
        if self._new:
            table = joined(self._schema, self._new).combine_chunks()
            self._spool.add(table)
            self._spooled.append(table)
            self._new = []
        return {}

    def _complete(self) -> None:
        held = [*self._spooled, *self._new]
        # Without any row there is still one part: it records the columns.
        if held or self._parts.index_of(self._num_written) == 0:
            self._write_part(held)

    def _release(self) -> None:
        self._spool.close()

    def _write_part(self, tables: list[Any]) -> None:
        # In one piece, so that the bytes do not depend on batches.
        table = joined(self._schema, tables).combine_chunks()
        self._parts.write(self._parts.index_of(self._num_written), table)
        self._spool.clear()
        self._spooled, self._new = [], []
