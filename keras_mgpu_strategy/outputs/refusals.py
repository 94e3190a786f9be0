"""What a file format cannot hold, reported as early as it can be known."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.types import HostBatch, Ragged, rows_of, values_of

_OWN = ("row", "file")
_KINDS = {
    "bool": "b",
    "integers": "iu",
    "floats": "f",
    "complex numbers": "c",
    "strings": "O",
}


def check_kinds(layout: Layout, suffix: str, kinds: str) -> None:
    """Checks that all dtypes are of `kinds`, characters of `numpy.dtype.kind`."""
    *others, last = [name for name, some in _KINDS.items() if some[0] in kinds]
    for column in stored_columns(layout):
        if column.dtype.kind not in kinds:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r} of dtype "
                f"{column.dtype}. Expected {', '.join(others)} or {last}. Cast this "
                "output in the model, leave it out, or give another kind of file."
            )


def check_lengths(layout: Layout, suffix: str) -> None:
    """Refuses outputs whose rows differ in length."""
    if any(column.is_ragged for column in layout.columns):
        raise ValueError(
            f"A {suffix} output cannot hold outputs whose rows differ in length, with "
            "a value for each token. Give a .parquet output, which holds lists, or "
            "choose outputs of one shape by outputs=."
        )


def check_widths(layout: Layout, suffix: str) -> None:
    """Checks that no column has rows without a value, such as of shape (0,)."""
    for column in layout.columns:
        if 0 in column.row_shape:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r}, whose rows of "
                f"shape {column.row_shape} hold no values. Leave it out of the "
                "model, or give a .npy or .csv output."
            )


def check_kept_names(kept: Sequence[str], outputs: Iterable[str] = ()) -> None:
    """Refuses names of kept columns that other columns of a table have, in any case."""
    taken = {name.casefold(): f"the output {name!r}" for name in outputs}
    taken |= {name: f"the column {name!r} of every table" for name in _OWN}
    for name in kept:
        if other := taken.get(name.casefold()):
            raise ValueError(
                f"Received keep with {name!r}, which is also the name of {other}. "
                "Expected names that no other column has, whatever their case. Rename "
                "the column, or leave it out of keep."
            )
        taken[name.casefold()] = f"the kept column {name!r}"


def refuse_missing(layout: Layout, rows: HostBatch, suffix: str) -> None:
    """Refuses missing rows of columns whose type has no NaN."""
    if rows.marks.missing is None:
        return
    for column in stored_columns(layout):
        if column.dtype.kind not in "fc":
            row = rows.start + int(rows.marks.missing.argmax())
            raise ValueError(
                f"Row {row} could not be read, and {column.dtype} values, as output "
                f"{column.name!r} has, cannot be marked as missing in a {suffix} "
                "output. Give a .parquet or .csv output, which leaves them empty."
            )


def decoded(
    layout: Layout, rows: HostBatch, suffix: str, *, keeps_nul: bool = True
) -> HostBatch:
    """Returns rows with strings as `str`; refuses what is not UTF-8, or a lost NUL."""

    def text_of(value: bytes) -> str:
        text = value.decode("utf-8")
        if not keeps_nul and "\0" in text:
            raise ValueError("the character NUL")
        return text

    return _with_texts(layout, rows, suffix, text_of)


def refuse_nul_at_end(layout: Layout, rows: HostBatch) -> None:
    """Refuses strings that end in a NUL, which NumPy would read without it."""

    def check(value: bytes) -> bytes:
        if value.endswith(b"\0"):
            raise ValueError("a NUL at its end, which NumPy drops")
        return value

    _with_texts(layout, rows, ".npy", check)


def _with_texts(
    layout: Layout, rows: HostBatch, suffix: str, convert: Callable[[bytes], Any]
) -> HostBatch:
    """Converts all strings; names the row of one that cannot be converted."""

    def converted(column: Column, leaf: Any) -> Any:
        array = values_of(leaf)
        result = np.empty(array.size, object)
        for index, value in enumerate(array.reshape(-1).tolist()):
            try:
                result[index] = convert(value)
            except ValueError as error:
                place = index // math.prod(array.shape[1:])
                row = rows.start + int(rows_of(leaf, place))
                what, remedy = error, ".parquet"
                if isinstance(error, UnicodeDecodeError):
                    what, remedy = "bytes that are not UTF-8", ".npy"
                raise ValueError(
                    f"A {suffix} output cannot hold output {column.name!r} of row "
                    f"{row}, {value!r:.60}: it has {what}. Give a {remedy} output, or "
                    "leave this output out of the model."
                ) from error
        result = result.reshape(array.shape)
        return Ragged(result, leaf.packed().offsets) if column.is_ragged else result

    pairs = zip(stored_columns(layout), rows.outputs, strict=True)
    outputs = [converted(*pair) if pair[0].is_text else pair[1] for pair in pairs]
    return dataclasses.replace(rows, outputs=outputs)
