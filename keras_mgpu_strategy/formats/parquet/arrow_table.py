"""Rows in memory -> Arrow tables.

Columns are `row` (int64), `file` (string) if rows have names, those that rows come
with, then one per output, tensors as nested lists; null for missing rows. float16
becomes float32, for readers without it. Rows that differ in length are lists of any
length.
"""

import functools
import io
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.types import HostBatch, Ragged


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


def table_of(schema: Any, rows: HostBatch) -> Any:
    """Returns rows as a `pyarrow.Table` with copies of the outputs."""
    import pyarrow as pa

    columns: list[Any] = [pa.array(np.arange(rows.start, rows.stop, dtype=np.int64))]
    if rows.marks.names is not None:
        columns.append(pa.array(rows.marks.names, pa.string()))
    if rows.marks.kept is not None:
        columns += rows.marks.kept.combine_chunks().columns
    kinds = schema.types[len(columns) :]
    for array, kind in zip(rows.outputs, kinds, strict=True):
        columns.append(_to_arrow(array, kind, rows.marks.missing))
    return pa.Table.from_arrays(columns, schema=schema)


def stored_kept(layout: Layout) -> Any:
    """The schema in which kept columns are stored; None without any."""
    return None if layout.kept is None else _stored(layout.kept)


@functools.lru_cache(maxsize=16)
def _stored(schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for field in schema:
        try:
            if "dictionary<" in str(field.type):
                raise pa.ArrowNotImplementedError("it holds dictionaries")
            pq.write_table(pa.schema([field]).empty_table(), io.BytesIO())
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"A .parquet output cannot hold the kept column {field.name!r} of type "
                f"{field.type}: {error}. Convert it first, such as to strings, or "
                "leave it out of keep."
            ) from error
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    file.seek(0)
    found = pq.read_schema(file)
    return pa.schema([(field.name, field.type) for field in found])


def _value_type(column: Column) -> Any:
    import pyarrow as pa

    if column.is_text:
        return pa.large_string()  # a part may hold more than 2 GiB of text
    return pa.from_numpy_dtype(np.float32 if column.dtype == "f2" else column.dtype)


def _to_arrow(array: Any, kind: Any, missing: np.ndarray | None) -> Any:
    import pyarrow as pa

    mask = None if missing is None else pa.array(missing)
    if isinstance(array, Ragged):
        packed = array.packed()
        values = _to_arrow(packed.values, kind.value_type, None)
        offsets = pa.array(packed.offsets.astype(np.int32))
        return pa.ListArray.from_arrays(offsets, values, mask=mask)
    if array.ndim > 1:
        flat = array.reshape(-1, *array.shape[2:])
        values = _to_arrow(flat, kind.value_type, None)
        return pa.FixedSizeListArray.from_arrays(values, array.shape[1], mask=mask)
    is_text = array.dtype == object
    values = array.tolist() if is_text else array.astype(kind.to_pandas_dtype())
    return pa.array(values, kind, mask=missing, from_pandas=False)
