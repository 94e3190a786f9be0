"""Arrow columns, made into NumPy arrays.

Guarantees:

* All values of a column have one shape; a null or a list of another length is an
  error that names the row.
* Numbers are not copied if Arrow stores them as NumPy does. Decimals become the
  nearest floats, or stay as they are. Strings are `bytes`.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.columns import EMPTY, LIST, NUMBER, TEXT
from keras_mgpu_strategy.sources.row_errors import Fail
from keras_mgpu_strategy.sources.safe_casts import as_integers, common_dtype


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnType:
    """What a column holds.

    Args:
        kind: One of the kinds in `columns`.
        dtype: Of the values, strings as kind "S"; None for other kinds.
        lengths: Of the lists that a row is made of, outermost first; None if not part
            of the type.
        shown: What Arrow calls the type.
    """

    kind: str
    dtype: np.dtype | None
    lengths: tuple[int | None, ...] = ()
    shown: str = dataclasses.field(default="", compare=False)


def column_type(arrow_type: Any) -> ColumnType:
    """Returns what a column of an Arrow type holds."""
    import pyarrow as pa

    lengths: list[int | None] = []
    inner, shown = _storage(arrow_type), str(arrow_type)
    while _is_list(inner):
        lengths.append(getattr(inner, "list_size", None))
        inner = _storage(inner.value_type)
    if pa.types.is_null(inner) and not lengths:
        return ColumnType(EMPTY, None, (), shown)
    dtype = _dtype(inner)
    if dtype is None:
        return ColumnType(shown, None, (), shown)
    kind = LIST if lengths else TEXT if dtype.kind == "S" else NUMBER
    return ColumnType(kind, dtype, tuple(lengths), shown)


def common_type(first: ColumnType, other: ColumnType) -> ColumnType | None:
    """Returns the type of a column that has one type here, another there.

    Returns:
        The type; None if the rows of the two cannot be rows of one input.
    """
    if EMPTY in (first.kind, other.kind):
        return other if first.kind == EMPTY else first
    depth = len(first.lengths)
    if first.kind != other.kind or depth != len(other.lengths):
        return None
    if first.dtype is None or other.dtype is None or first.dtype == other.dtype:
        dtype = first.dtype
    elif "S" in (first.dtype.kind, other.dtype.kind):
        return None
    else:
        dtype = common_dtype([first.dtype, other.dtype])
    pairs = list(zip(first.lengths, other.lengths, strict=True))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return None
    lengths = tuple(one if one is not None else two for one, two in pairs)
    return dataclasses.replace(first, dtype=dtype, lengths=lengths)


def first_lengths(array: Any, num_levels: int) -> tuple[int, ...]:
    """Returns the lengths of the lists that the first row with a value is made of."""
    found = []
    values = _values(array)
    for _ in range(num_levels):
        present = values.drop_null() if values.null_count else values
        values = _values(present[:1].flatten())
        found.append(len(values))
    return tuple(found)


def decode(
    array: Any, lengths: tuple[int, ...], as_floats: bool, as_nan: bool, fail: Fail
) -> np.ndarray:
    """Returns the values of a column.

    Args:
        array: An Arrow array of `rows` values.
        lengths: Of the lists that each value must be made of.
        as_floats: Whether decimals become floats; integers otherwise.
        as_nan: Whether a null becomes NaN, or a list of NaNs; requires `as_floats`.
        fail: Called if a row holds a null or a list of another length.

    Returns:
        An array of shape `(rows, *lengths)`.
    """
    values, per_row = _values(array), 1
    for length in lengths:
        if as_nan and values.null_count:
            values = values.fill_null(_nulls(length, values.type))
        _check_nulls(values, per_row, f"a list of {length}", fail)
        _check_lengths(values, length, per_row, fail)
        values, per_row = _values(values.flatten()), per_row * length
    if as_nan and values.null_count:
        values = _float64(values).fill_null(math.nan)
    _check_nulls(values, per_row, "a value", fail)
    if _is_decimal(values.type) and not as_floats:
        numbers = as_integers(values.to_pylist(), per_row, fail)
    else:
        numbers = _as_numpy(values)
    # Without values, reshape cannot infer -1 next to an axis of 0.
    return numbers.reshape((len(array), *lengths))


def _nulls(length: int, arrow_type: Any) -> Any:
    import pyarrow as pa

    return pa.scalar([None] * length, arrow_type)


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

    types = pa.types
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    # Views came with pyarrow 16 and 18.
    views = [getattr(types, f"is_{name}_view", None) for name in ("list", "large_list")]
    return any(is_kind(arrow_type) for is_kind in (*kinds, *filter(None, views)))


def _dtype(arrow_type: Any) -> np.dtype | None:
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(arrow_type) or types.is_integer(arrow_type):
        return np.dtype(arrow_type.to_pandas_dtype())
    if types.is_floating(arrow_type):
        return np.dtype(arrow_type.to_pandas_dtype())
    if _is_decimal(arrow_type):
        return np.dtype(np.float64)
    strings = (types.is_string, types.is_large_string, types.is_binary)
    strings += (types.is_large_binary, types.is_fixed_size_binary)
    views = [getattr(types, f"is_{name}_view", None) for name in ("string", "binary")]
    is_text = any(is_kind(arrow_type) for is_kind in (*strings, *filter(None, views)))
    return np.dtype("S") if is_text else None


def _check_nulls(values: Any, per_row: int, expected: str, fail: Fail) -> None:
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        fail(
            int(nulls.argmax()) // per_row,
            f"holds a null, expected {expected}. Fill it in, leave out the column, or "
            "pass missing_as_nan=True to files.Parquet where the model takes floats.",
        )


def _check_lengths(values: Any, length: int, per_row: int, fail: Fail) -> None:
    import pyarrow.compute as pc

    lengths = pc.call_function("list_value_length", [values])
    found = lengths.to_numpy(zero_copy_only=False)
    if (found != length).any():
        row = int((found != length).argmax())
        fail(
            row // per_row,
            f"holds a list of {found[row]} values, expected {length} as in the rest. "
            "Repair the row, or leave out the column.",
        )


def _as_numpy(values: Any) -> np.ndarray:
    import pyarrow as pa

    if _is_decimal(values.type):
        values = _float64(values)
    elif _dtype(values.type) == np.dtype("S"):
        values = values.cast(pa.large_binary())
    return values.to_numpy(zero_copy_only=False)


def _float64(values: Any) -> Any:
    import pyarrow as pa

    if _is_decimal(values.type):
        # Via text, which is read as the nearest float; Arrow itself would divide.
        values = values.cast(pa.string())
    return values.cast(pa.float64(), safe=False)


def _is_decimal(arrow_type: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_decimal(arrow_type)
