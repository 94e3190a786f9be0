"""What columns of Arrow hold: values of one type, and how many bytes they are."""

from typing import Any

import numpy as np

_VALUE_BYTES, _LIST_VALUES = 64, 8
"""Guesses."""


def value_type(arrow_type: Any) -> Any:
    """The type of the values of a dictionary; others as they are."""
    return arrow_type.value_type if hasattr(arrow_type, "index_type") else arrow_type


def values_of(array: Any, arrow_type: Any) -> Any:
    """Returns an array of the values of an array, a dictionary or not, in a type."""
    if hasattr(array, "combine_chunks"):
        array = array.combine_chunks()
    if hasattr(array, "dictionary_decode"):
        array = array.dictionary_decode()
    return array if array.type.equals(arrow_type) else array.cast(arrow_type)


def row_bytes(schema: Any) -> int:
    """About how many bytes a row has, from the types alone."""
    return sum(map(_bytes_of_type, schema.types))


def joined(schema: Any, pieces: list[Any]) -> Any:
    """Returns one table of consecutive ones."""
    import pyarrow as pa

    return pa.concat_tables(pieces) if pieces else schema.empty_table()


def bytes_of(table: Any) -> np.ndarray:
    """Bytes that are equal for equal values, whatever lies where there is a null."""
    import pyarrow as pa

    found = []
    for name, column in zip(table.schema.names, table.columns, strict=True):
        nulls = column.is_null().to_numpy().astype(bool)
        values = pa.array(column.drop_null().combine_chunks())
        batch = pa.record_batch([values], [name])
        found += [np.packbits(nulls).tobytes(), batch.serialize().to_pybytes()]
    return np.frombuffer(b"".join(found), np.uint8)


def _bytes_of_type(arrow_type: Any) -> int:
    size = getattr(arrow_type, "list_size", _LIST_VALUES)
    if hasattr(arrow_type, "value_type") and not hasattr(arrow_type, "index_type"):
        return size * _bytes_of_type(arrow_type.value_type)
    if arrow_type.num_fields:
        fields = (arrow_type.field(i) for i in range(arrow_type.num_fields))
        return sum(_bytes_of_type(field.type) for field in fields)
    try:
        return max(arrow_type.bit_width // 8, 1)
    except ValueError:  # strings and bytes
        return _VALUE_BYTES
