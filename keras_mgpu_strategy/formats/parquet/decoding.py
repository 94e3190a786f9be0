"""Columns of Arrow as arrays of NumPy: nulls and lists of another length are errors."""

import math
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.parquet.schema import dtype_of, is_decimal
from keras_mgpu_strategy.sources.row_errors import Fail
from keras_mgpu_strategy.sources.safe_casts import as_integers
from keras_mgpu_strategy.system.extras import import_extra

_PAD = "For rows of unequal length, pass pad=mgpu.Pad()."


def decoded(
    array: Any,
    lengths: tuple[int, ...],
    as_floats: bool,
    as_nan: bool,
    fail: Fail,
    remedy: str = _PAD,
) -> np.ndarray:
    """Returns `(rows, *lengths)` or calls `fail`; `as_nan` requires `as_floats`."""
    values, per_row = arrow_values(array), 1
    for length in lengths:
        if as_nan and values.null_count:
            values = values.fill_null([None] * length)
        check_nulls(values, per_row, f"a list of {length}", fail)
        check_lengths(values, length, per_row, fail, remedy)
        values, per_row = arrow_values(values.flatten()), per_row * length
    if as_nan and values.null_count:
        values = _as_float64(values).fill_null(math.nan)
    check_nulls(values, per_row, "a value", fail)
    if is_decimal(values.type) and not as_floats:
        numbers = as_integers(values.to_pylist(), per_row, fail)
    else:
        if is_decimal(values.type):
            values = _as_float64(values)
        elif dtype_of(values.type) == np.dtype("S"):
            values = values.cast("large_binary")
        numbers = values.to_numpy(zero_copy_only=False)
    # Without values, reshape cannot infer -1 next to an axis of 0.
    return numbers.reshape((len(array), *lengths))


def arrow_values(array: Any) -> Any:
    """The values of a dictionary or a tensor."""
    if hasattr(array, "dictionary_decode"):
        return array.dictionary_decode()
    return getattr(array, "storage", array)


def _as_float64(values: Any) -> Any:
    # Decimals via text, which is read as the nearest float; Arrow itself would divide.
    values = values.cast("string") if is_decimal(values.type) else values
    return values.cast("float64", safe=False)


def check_nulls(values: Any, per_row: int, expected: str, fail: Fail) -> None:
    """Calls `fail` for the row of a null, of which each has `per_row` values."""
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        fail(
            int(nulls.argmax()) // per_row,
            f"holds a null, expected {expected}. Fill it in, or leave out the column; "
            "for inputs of floats, pass missing_as_nan=True to files.Parquet.",
        )


def first_lengths(array: Any, num_levels: int) -> tuple[int, ...]:
    """The lengths of the lists that the first row with a value is made of."""
    found, values = [], arrow_values(array)
    for _ in range(num_levels):
        present = values.drop_null() if values.null_count else values
        values = arrow_values(present[:1].flatten())
        found.append(len(values))
    return tuple(found)


def lengths_of_lists(values: Any) -> np.ndarray:
    """The length of each list."""
    pc = import_extra("pyarrow.compute", "parquet", "Reading columns of lists")
    lengths = pc.call_function("list_value_length", [values])
    return lengths.to_numpy(zero_copy_only=False)


def check_lengths(
    values: Any, length: int, per_row: int, fail: Fail, remedy: str = _PAD
) -> None:
    """Calls `fail` for the row of a list of another length."""
    found = lengths_of_lists(values)
    if (found != length).any():
        row = int((found != length).argmax())
        fail(
            row // per_row,
            f"holds a list of {found[row]} values, expected {length} as in the rest. "
            f"{remedy} Otherwise repair the row, or leave out the column.",
        )
