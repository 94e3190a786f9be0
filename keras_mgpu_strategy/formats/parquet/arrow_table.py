"""Rows in memory -> an Arrow table, and back without a change.

Columns are `row` (int64), `file` (string) if rows have names, those that rows come
with, then one per output, tensors as nested lists; null for missing rows. float16
becomes float32, for readers without it. Each column is in one piece: bytes do not
depend on batches. Rows that differ in length are lists of any length.
"""

from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.parquet.held_tokens import HeldTokens
from keras_mgpu_strategy.formats.parquet.kept_rows import Pieces, stored_kept
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.types import HostBatch, Ragged, RowMarks


class HeldRows:
    """Copies of at most `num_rows` rows; memory is used as they come."""

    def __init__(self, layout: Layout, num_rows: int):
        self._arrays = [_held(column, num_rows) for column in stored_columns(layout)]
        self._names: list[str] | None = [] if layout.has_names else None
        self._missing = np.zeros(num_rows, bool)
        self._kept = Pieces(layout)

    def put(self, offset: int, rows: HostBatch) -> None:
        """Copies rows to a place, after which nothing is kept."""
        place, marks = slice(offset, offset + rows.stop - rows.start), rows.marks
        self._missing[place] = False if marks.missing is None else marks.missing
        for array, values in zip(self._arrays, rows.outputs, strict=True):
            array[place] = values
        if self._names is not None:
            self._names[offset:] = marks.names or []
        self._kept.put(offset, marks.kept)

    def rows(self, row: int, start: int, stop: int) -> HostBatch:
        """Returns views of the rows at places `start` to `stop`; `row` is at 0."""
        outputs = [array[start:stop] for array in self._arrays]
        names = None if self._names is None else self._names[start:stop]
        missing = self._missing[start:stop]
        kept = self._kept.rows(start, stop)
        marks = RowMarks(names, missing if missing.any() else None, kept)
        return HostBatch(row + start, outputs, marks)


def _held(column: Column, num_rows: int) -> Any:
    if column.is_ragged:
        return HeldTokens(num_rows, column.row_shape[1:], column.dtype)
    return np.empty((num_rows, *column.row_shape), column.dtype)


def schema_of(layout: Layout) -> Any:
    """The `pyarrow.Schema` of the tables."""
    import pyarrow as pa

    fields = [("row", pa.int64())] + [("file", pa.string())] * layout.has_names
    fields += stored_kept(layout) or []
    for column in stored_columns(layout):
        field = _value_type(column)
        for size in reversed(column.row_shape):
            field = pa.list_(field, -1 if size is None else size)
        fields.append((column.name, field))
    return pa.schema(fields)


def table_of(layout: Layout, rows: HostBatch) -> Any:
    """Returns rows as a `pyarrow.Table`, which may share their memory."""
    import pyarrow as pa

    columns: list[Any] = [pa.array(np.arange(rows.start, rows.stop, dtype=np.int64))]
    if rows.marks.names is not None:
        columns.append(pa.array(rows.marks.names, pa.string()))
    if rows.marks.kept is not None:
        columns += rows.marks.kept.combine_chunks().columns
    for column, array in zip(stored_columns(layout), rows.outputs, strict=True):
        columns.append(_to_arrow(column, array, rows.marks.missing))
    return pa.Table.from_arrays(columns, schema=schema_of(layout))


def rows_of(layout: Layout, table: Any) -> HostBatch:
    """Returns the rows of a table of `table_of`; a `ValueError` if it is another."""
    if not table.schema.equals(schema_of(layout)):
        raise ValueError(f"other columns than expected: {table.schema.names}")
    row = table["row"].to_numpy()
    start = int(row[0]) if len(row) else layout.first_row
    if not np.array_equal(row, np.arange(start, start + len(row))):
        raise ValueError(f"rows that do not follow each other, from row {start} on")
    columns = stored_columns(layout)
    missing = table[columns[0].name].is_null().to_numpy().astype(bool)
    outputs = [_to_numpy(column, table[column.name]) for column in columns]
    names = table["file"].to_pylist() if layout.has_names else None
    schema = stored_kept(layout)
    kept = None if schema is None else table.select(schema.names)
    marks = RowMarks(names, missing if missing.any() else None, kept)
    return HostBatch(start, outputs, marks)


def _value_type(column: Column) -> Any:
    import pyarrow as pa

    if column.is_text:
        return pa.large_string()  # a part may hold more than 2 GiB of text
    return pa.from_numpy_dtype(np.float32 if column.dtype == "f2" else column.dtype)


def _to_arrow(column: Column, array: Any, missing: np.ndarray | None) -> Any:
    import pyarrow as pa

    if isinstance(array, Ragged):
        packed, mask = array.packed(), None if missing is None else pa.array(missing)
        values = _to_arrow(column.of_token, packed.values, None)
        offsets = pa.array(packed.offsets.astype(np.int32))
        return pa.ListArray.from_arrays(offsets, values, mask=mask)
    mask = None if column.row_shape else missing
    values: Any = array.reshape(-1)
    values = values.tolist() if column.is_text else values
    if column.dtype == "f2":
        values = values.astype(np.float32)
    result = pa.array(values, _value_type(column), mask=mask, from_pandas=False)
    for size in reversed(column.row_shape[1:]):
        result = pa.FixedSizeListArray.from_arrays(result, size)
    if column.row_shape:
        mask = None if missing is None else pa.array(missing)
        result = pa.FixedSizeListArray.from_arrays(
            result, column.row_shape[0], mask=mask
        )
    return result


def _to_numpy(column: Column, chunks: Any) -> Any:
    import pyarrow as pa

    values, num_rows = chunks.combine_chunks(), len(chunks)
    if column.is_ragged:
        lengths = values.value_lengths().fill_null(0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = pa.chunked_array([values.flatten()])
        return Ragged(_to_numpy(column.of_token, tokens), offsets)
    for size in column.row_shape:
        # flatten() would leave out the values of null lists and shift the others.
        values = values.values.slice(values.offset * size, len(values) * size)
    zero = "" if column.is_text else np.zeros((), column.dtype).item()
    flat = values.fill_null(zero).to_numpy(zero_copy_only=False)
    return flat.astype(column.dtype, copy=False).reshape(num_rows, *column.row_shape)
