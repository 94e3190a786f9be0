"""Rows -> an Arrow table, and back without a change.

A column `row` (int64), a column `file` (string) if rows have names, then one per
output: numbers unchanged, strings as text, tensors as nested lists of fixed size.
Missing rows are null in all outputs. float16 is widened to float32, since not every
Parquet reader supports it.

Guarantees:

* A table depends on its rows alone, and each column is in one piece, so that the bytes
  written do not depend on how the rows were batched.
"""

from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import Rows, stored_columns


def schema_of(layout: Layout) -> Any:
    """The `pyarrow.Schema` of the tables."""
    import pyarrow as pa

    fields = [("row", pa.int64())]
    if layout.has_names:
        fields.append(("file", pa.string()))
    fields += [(column.name, _type(column)) for column in stored_columns(layout)]
    return pa.schema(fields)


def table_of(layout: Layout, rows: Rows) -> Any:
    """Returns rows as a `pyarrow.Table`, which may share their memory."""
    import pyarrow as pa

    columns: list[Any] = [pa.array(np.arange(rows.start, rows.stop, dtype=np.int64))]
    if rows.names is not None:
        columns.append(pa.array(rows.names, pa.string()))
    for column, array in zip(stored_columns(layout), rows.arrays, strict=True):
        columns.append(_to_arrow(column, array, rows.missing))
    return pa.Table.from_arrays(columns, schema=schema_of(layout))


def rows_of(layout: Layout, table: Any) -> Rows:
    """Returns the rows of a table that `table_of` gave.

    Raises:
        ValueError: It has other columns, or rows that do not follow each other.
    """
    if not table.schema.equals(schema_of(layout)):
        raise ValueError(f"other columns than expected: {table.schema.names}")
    row = table["row"].to_numpy()
    start = int(row[0]) if len(row) else layout.first_row
    if not np.array_equal(row, np.arange(start, start + len(row))):
        raise ValueError(f"rows that do not follow each other, from row {start} on")
    columns = stored_columns(layout)
    missing = table[columns[0].name].is_null().to_numpy().astype(bool)
    return Rows(
        start,
        start + len(row),
        [_to_numpy(column, table[column.name]) for column in columns],
        table["file"].to_pylist() if layout.has_names else None,
        missing if missing.any() else None,
    )


def _value_type(column: Column) -> Any:
    import pyarrow as pa

    if column.is_text:
        return pa.large_string()  # a part may hold more than 2 GiB of text
    return pa.from_numpy_dtype(np.float32 if column.dtype == "f2" else column.dtype)


def _type(column: Column) -> Any:
    import pyarrow as pa

    result = _value_type(column)
    for size in reversed(column.row_shape):
        result = pa.list_(result, size)
    return result


def _to_arrow(column: Column, array: np.ndarray, missing: np.ndarray | None) -> Any:
    import pyarrow as pa

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


def _to_numpy(column: Column, chunks: Any) -> np.ndarray:
    values, num_rows = chunks.combine_chunks(), len(chunks)
    for size in column.row_shape:
        # flatten() would leave out the values of null lists and shift the others.
        values = values.values.slice(values.offset * size, len(values) * size)
    zero = "" if column.is_text else np.zeros((), column.dtype).item()
    flat = values.fill_null(zero).to_numpy(zero_copy_only=False)
    return flat.astype(column.dtype, copy=False).reshape(num_rows, *column.row_shape)
