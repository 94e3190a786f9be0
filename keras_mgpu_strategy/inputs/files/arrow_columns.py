"""Arrow columns, made into NumPy arrays.

Guarantees:

* All values of a column have one shape; a null or a list of another length is an
  error that names the row.
* Numbers are not copied where Arrow holds them as NumPy does. Strings are `bytes`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from keras_mgpu_strategy.inputs.files.columns import LIST, NUMBER, OTHER, TEXT

Fail = Callable[[int, str], NoReturn]
"""Raises an error about a row, counted from the first one of an array."""


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnType:
    """What a column holds.

    Args:
        kind: One of the kinds in `columns`.
        dtype: Of the values, strings as kind "S"; None for other kinds.
        lengths: Of the lists that a row is made of, outermost first; None where it
            is not part of the type.
    """

    kind: str
    dtype: np.dtype | None
    lengths: tuple[int | None, ...] = ()


def column_type(arrow_type: Any) -> ColumnType:
    """Returns what a column of an Arrow type holds."""
    lengths: list[int | None] = []
    inner = _storage(arrow_type)
    while _is_list(inner):
        lengths.append(getattr(inner, "list_size", None))
        inner = _storage(inner.value_type)
    dtype = _dtype(inner)
    if dtype is None:
        return ColumnType(OTHER, None)
    kind = LIST if lengths else TEXT if dtype.kind == "S" else NUMBER
    return ColumnType(kind, dtype, tuple(lengths))


def first_lengths(array: Any, num_levels: int) -> tuple[int, ...]:
    """Returns the lengths of the lists that the first row of an array is made of."""
    found = []
    values = _values(array[:1])
    for _ in range(num_levels):
        values = _values(values[:1].flatten())
        found.append(len(values))
    return tuple(found)


def decode(array: Any, lengths: tuple[int, ...], fail: Fail) -> np.ndarray:
    """Returns the values of a column.

    Args:
        array: An Arrow array of `rows` values.
        lengths: Of the lists that each value must be made of.
        fail: Called where a row holds a null or a list of another length.

    Returns:
        An array of shape `(rows, *lengths)`.
    """
    values, per_row = _values(array), 1
    for length in lengths:
        _check_nulls(values, per_row, fail)
        _check_lengths(values, length, per_row, fail)
        values, per_row = _values(values.flatten()), per_row * length
    _check_nulls(values, per_row, fail)
    # reshape((rows, 0)) of nothing would not do with -1.
    return _as_numpy(values).reshape((len(array), *lengths))


def row_bytes(kind: ColumnType) -> int:
    """Returns about how much memory the values of a row take."""
    known = math.prod(length or 64 for length in kind.lengths)
    return known * (64 if kind.dtype is None else max(kind.dtype.itemsize, 1))


def _storage(arrow_type: Any) -> Any:
    """The type that a dictionary or a tensor is stored as."""
    if hasattr(arrow_type, "index_type"):
        return arrow_type.value_type
    permutation = getattr(arrow_type, "permutation", None)
    if permutation is None or list(permutation) == sorted(permutation):
        return getattr(arrow_type, "storage_type", arrow_type)
    return arrow_type


def _values(array: Any) -> Any:
    if hasattr(array, "dictionary_decode"):
        return array.dictionary_decode()
    return getattr(array, "storage", array)


def _is_list(arrow_type: Any) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(arrow_type) for is_kind in kinds)


def _dtype(arrow_type: Any) -> np.dtype | None:
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(arrow_type) or types.is_integer(arrow_type):
        return np.dtype(arrow_type.to_pandas_dtype())
    if types.is_floating(arrow_type):
        return np.dtype(arrow_type.to_pandas_dtype())
    strings = (types.is_string, types.is_large_string, types.is_binary)
    strings += (types.is_large_binary, types.is_fixed_size_binary)
    return np.dtype("S") if any(is_kind(arrow_type) for is_kind in strings) else None


def _check_nulls(values: Any, per_row: int, fail: Fail) -> None:
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        fail(int(nulls.argmax()) // per_row, "holds a null, expected a value")


def _check_lengths(values: Any, length: int, per_row: int, fail: Fail) -> None:
    import pyarrow.compute as pc

    lengths = pc.call_function("list_value_length", [values])
    found = lengths.to_numpy(zero_copy_only=False)
    if (found != length).any():
        row = int((found != length).argmax())
        fail(
            row // per_row,
            f"holds a list of {found[row]} values, expected {length} as in the rest",
        )


def _as_numpy(values: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_string(values.type):
        values = values.cast(pa.binary())
    elif pa.types.is_large_string(values.type):
        values = values.cast(pa.large_binary())
    return values.to_numpy(zero_copy_only=False)
