"""Columns that are stored beside the results, as Arrow tables of some rows.

A column has one type, which no chunk of it can change. Categories are their values.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras_mgpu_strategy.digests.samples import digest_of_rows
from keras_mgpu_strategy.sources.arrow_values import bytes_of, row_bytes
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import Origin, RowMarks, Source

ReadTable = Callable[[int, int], Any]
"""Returns rows of columns as a `pyarrow.Table`."""


def schema_of(source: Any) -> Any:
    """The `pyarrow.Schema` of the columns that a source keeps; None without any."""
    return getattr(source, "kept_schema", None)


def about_kept(read: ReadTable, num_rows: int, schema: Any) -> dict[str, Any]:
    """What distinguishes the values of kept columns from others."""
    size = row_bytes(schema)
    digest = digest_of_rows(lambda a, b: bytes_of(read(a, b)), num_rows, size)
    return {"values of the kept columns": digest}


@dataclasses.dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column in memory: its Arrow type, and what reads rows of it in this type."""

    arrow_type: Any
    num_rows: int
    read: Callable[[int, int], Any]


class WithKept(Wrapped):
    """A source of rows in memory, with columns that are read by position."""

    def __init__(self, source: Source, columns: Mapping[str, KeptColumn]) -> None:
        import pyarrow as pa

        super().__init__(source)
        self._columns = columns
        pairs = [(name, column.arrow_type) for name, column in columns.items()]
        self.kept_schema = pa.schema(pairs)

    def marks(self, start: int, stop: int) -> RowMarks:
        """The columns of some rows."""
        return RowMarks(kept=self._table(start, stop))

    def origin(self) -> Origin:
        """What distinguishes the rows, and the values of the columns, from others."""
        origin = origin_of(self._source)
        kept = about_kept(self._table, self.num_rows or 0, self.kept_schema)
        return dataclasses.replace(origin, about={**origin.about, **kept})

    def _table(self, start: int, stop: int) -> Any:
        import pyarrow as pa

        arrays = [column.read(start, stop) for column in self._columns.values()]
        return pa.Table.from_arrays(arrays, schema=self.kept_schema)
