"""What a file format cannot hold, reported as early as it can be known."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import Rows, stored_columns

_KINDS = {
    "bool": "b",
    "integers": "iu",
    "floats": "f",
    "complex numbers": "c",
    "strings": "O",
}


def check_kinds(layout: Layout, suffix: str, kinds: str) -> None:
    """Checks that a file format can hold the dtypes of all columns.

    Args:
        layout: What the file is to hold.
        suffix: Of the file format.
        kinds: Those it can hold, as characters of `numpy.dtype.kind`.

    Raises:
        ValueError: It cannot.
    """
    for column in stored_columns(layout):
        if column.dtype.kind not in kinds:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r} of dtype "
                f"{column.dtype}. Expected {_named(kinds)}. Cast this output in the "
                "model, leave it out, or give another kind of file."
            )


def _named(kinds: str) -> str:
    known = [name for name, some in _KINDS.items() if set(some) & set(kinds)]
    return f"{', '.join(known[:-1])} or {known[-1]}"


def check_widths(layout: Layout, suffix: str) -> None:
    """Checks that no column has rows without a value, such as of shape (0,)."""
    for column in layout.columns:
        if 0 in column.row_shape:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r}, whose rows of "
                f"shape {column.row_shape} hold no values. Leave it out of the "
                "model, or give a .npy or .csv output."
            )


def refuse_missing(layout: Layout, rows: Rows, suffix: str) -> None:
    """Refuses missing rows of columns whose type has no NaN.

    Raises:
        ValueError: There is such a row.
    """
    if rows.missing is None:
        return
    for column in stored_columns(layout):
        if column.dtype.kind not in "fc":
            raise ValueError(
                f"Row {rows.start + int(rows.missing.argmax())} could not be read, and "
                f"{column.dtype} values, as output {column.name!r} has, cannot be "
                f"marked as missing in a {suffix} output. Give a .parquet or .csv "
                "output, which leaves them empty."
            )


def decoded(layout: Layout, rows: Rows, suffix: str, *, keeps_nul: bool = True) -> Rows:
    """Returns rows whose strings are `str`, for text files.

    Args:
        layout: What the file holds.
        rows: The rows.
        suffix: Of the file format.
        keeps_nul: Whether its readers keep the character NUL.

    Raises:
        ValueError: Bytes are not UTF-8, or hold a NUL that would be lost.
    """

    def text_of(value: bytes) -> str:
        text = value.decode("utf-8")
        if not keeps_nul and "\0" in text:
            raise ValueError("the character NUL")
        return text

    return _with_texts(layout, rows, suffix, text_of)


def refuse_nul_at_end(layout: Layout, rows: Rows, suffix: str) -> None:
    """Refuses strings that end in a NUL, which would be read without it.

    Raises:
        ValueError: There is one.
    """

    def check(value: bytes) -> bytes:
        if value.endswith(b"\0"):
            raise ValueError("a NUL at its end, which NumPy drops")
        return value

    _with_texts(layout, rows, suffix, check)


def _with_texts(
    layout: Layout, rows: Rows, suffix: str, convert: Callable[[bytes], Any]
) -> Rows:
    """Converts all strings; names the row of one that cannot be converted."""
    arrays = [
        _converted(column, array, rows.start, suffix, convert)
        if column.is_text
        else array
        for column, array in zip(stored_columns(layout), rows.arrays, strict=True)
    ]
    return dataclasses.replace(rows, arrays=arrays)


def _converted(
    column: Column,
    array: np.ndarray,
    start: int,
    suffix: str,
    convert: Callable[[bytes], Any],
) -> np.ndarray:
    result = np.empty(array.size, object)
    for index, value in enumerate(array.reshape(-1).tolist()):
        try:
            result[index] = convert(value)
        except ValueError as error:
            row = start + index // math.prod(column.row_shape)
            what, remedy = error, ".parquet"
            if isinstance(error, UnicodeDecodeError):
                what, remedy = "bytes that are not UTF-8", ".npy"
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r} of row {row}, "
                f"{value!r:.60}: it has {what}. Give a {remedy} output, or leave this "
                "output out of the model."
            ) from error
    return result.reshape(array.shape)
