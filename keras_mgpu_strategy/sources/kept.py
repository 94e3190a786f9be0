"""Columns that are stored beside the results, as Arrow tables of some rows.

A column has one type, which no chunk of it can change; in a stream, that of the first
batch. Arrays of a stream are copied, since a producer may reuse their memory.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.samples import digest_of_array, digest_of_rows
from keras_mgpu_strategy.sources.arrow_values import bytes_of, row_bytes
from keras_mgpu_strategy.sources.kept_columns import KeptColumn, column_of
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.sources.streams import StreamSource, inputs_of
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


class KeptElements(Wrapped):
    """A stream with the entries `names` of the dict in each of its elements."""

    def __init__(self, source: StreamSource, names: Sequence[str]) -> None:
        super().__init__(source)
        self._names, self._beside = names, source.beside
        self._first_row: dict[str, Any] = {}
        source.companions.append(self._with_columns)

    @property
    def kept_schema(self) -> Any:
        """The columns, from the first element; None without any element."""
        if self._beside.schema is None:
            origin_of(self._source)  # reads the first element
        return self._beside.schema

    def origin(self) -> Origin:
        """What distinguishes the first row, with its columns, from others."""
        about = origin_of(self._source).about
        return Origin({**about, **self._first_row})

    def _with_columns(
        self, marks: RowMarks, element: Any, first_row: int, num_rows: int
    ) -> RowMarks:
        table = self._table(inputs_of(element), num_rows)
        if self._beside.schema is None:
            self._beside.schema = table.schema
            first = digest_of_array(bytes_of(table.slice(0, 1)))
            self._first_row = {"first row of the kept columns": first}
        if not num_rows:  # an array of objects shows no type then
            table = self._beside.schema.empty_table()
        if table.schema != self._beside.schema:
            raise ValueError(
                f"received columns to keep of types {_shown(table.schema)}, expected "
                f"{_shown(self._beside.schema)} as in batch 0. Convert them to one "
                "type."
            )
        return dataclasses.replace(marks, kept=table)

    def _table(self, entries: Mapping[str, Any], num_rows: int) -> Any:
        import pyarrow as pa

        columns = {}
        for name in self._names:
            column = column_of(_copied(entries[name]), f"keep: {name!r}")
            if column.num_rows != num_rows:
                raise ValueError(
                    f"keep: {name!r} has {column.num_rows} values, expected one for "
                    f"each of the {num_rows} rows."
                )
            columns[name] = column.read(0, num_rows)
        return pa.table(columns)


def _copied(values: Any) -> Any:
    if isinstance(values, tf.Tensor) and values.dtype != tf.string:
        return values.numpy()
    return np.array(values) if isinstance(values, np.ndarray) else values


def _shown(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
