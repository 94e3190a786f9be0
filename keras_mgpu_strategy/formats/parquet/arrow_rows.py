"""Rows of Arrow tables, in files or memory, decoded a few at a time, once per pass.

All values of a column have one shape. A null, a number that the model cannot hold or a
list of another length is an error with the row. Numbers are not copied if they need not
be, decimals become the nearest floats or stay, strings are `bytes`.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import Choice, form_for
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.parquet.kept import KeptArrowColumns
from keras_mgpu_strategy.formats.parquet.part import Part
from keras_mgpu_strategy.formats.parquet.schema import (
    ColumnType,
    Schema,
    dtype_of,
    is_decimal,
)
from keras_mgpu_strategy.sources.arrow_values import row_bytes
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.row_errors import Fail, failing, until_bad
from keras_mgpu_strategy.sources.safe_casts import as_integers

_FIRST_ROWS = 64
_BATCH_BYTES, _MOST_ROWS = 2**22, 2**16
_LIST_LENGTH, _VALUE_BYTES = 64, 64
"""Guesses."""


class ArrowRows:
    """Chosen and kept columns of tables; `schema` has what all have in common."""

    def __init__(
        self,
        parts: Sequence[Part],
        schema: Schema,
        choices: Sequence[Choice],
        missing_as_nan: bool,
        kept: KeptArrowColumns,
    ) -> None:
        types = _types(parts, schema, choices)
        self._kept, self.kept_schema = kept, kept.schema
        self._parts, self.num_rows = parts, sum(part.num_rows for part in parts)
        self._columns = [_ArrowColumns(c, types, missing_as_nan) for c in choices]
        self.specs = [column.form.spec for column in self._columns]
        self._names = types.keys() | kept.names
        num_bytes = sum(_row_bytes(types[n]) for c in choices for n in c.columns)
        num_bytes += row_bytes(kept.schema) if kept.names else 0
        self._size = min(max(_BATCH_BYTES // max(num_bytes, 1), 1), _MOST_ROWS)

    def read(self, start: int) -> Generator[Rows, None, None]:
        """Yields all rows from `start` onwards."""
        for part in self._parts:
            if start < part.num_rows:
                names = sorted(self._names - part.keys.keys())
                for first, batch in part.batches(names, self._size, start):
                    decoded = functools.partial(self._decode, part, batch, first)
                    yield from until_bad(batch.num_rows, decoded)
            start = max(start - part.num_rows, 0)

    def _decode(self, part: Part, batch: Any, first: int, num_rows: int) -> Rows:
        some = batch.slice(0, num_rows)
        flat = [column.read(part, some, first) for column in self._columns]
        return Rows(flat, num_rows, columns=self._kept.read(part, some))


class _ArrowColumns:
    def __init__(
        self, choice: Choice, types: Mapping[str, ColumnType], missing_as_nan: bool
    ) -> None:
        self._types = {name: types[name] for name in choice.columns}
        cells = [(types[name].dtype, types[name].lengths) for name in choice.columns]
        self.form = form_for(choice, cells, missing_as_nan)
        self._missing_as_nan = missing_as_nan

    def read(self, part: Part, batch: Any, first: int) -> np.ndarray:
        cells = [self._values(part, batch, name, first) for name in self.form.columns]
        return self.form.join(cells, first, part.path)

    def _values(self, part: Part, batch: Any, name: str, first: int) -> np.ndarray:
        kind, is_float = self._types[name], self.form.cast.dtype.is_floating
        as_nan = is_float and (self._missing_as_nan or name in part.schema.nan)
        fail = failing(f"{part.path}, column {name!r}", first)
        if name in part.keys:
            value = part.keys[name]
            return hive.key_values(value, kind, batch.num_rows, as_nan, fail)
        lengths = tuple(length or 0 for length in kind.lengths)
        return _decoded(batch.column(name), lengths, is_float, as_nan, fail)


def _types(
    parts: Sequence[Part], schema: Schema, choices: Sequence[Choice]
) -> dict[str, ColumnType]:
    """Types, with lengths of the first rows; keys for text inputs stay text (007)."""
    types = {name: schema.types[name] for c in choices for name in c.columns}
    texts = {n for c in choices if c.input.wanted == tf.string for n in c.columns}
    types |= dict.fromkeys(texts & parts[0].keys.keys(), hive.TEXT_KEY)
    unknown = [name for name, kind in types.items() if None in kind.lengths]
    part = next((part for part in parts if part.num_rows), None)
    if part is not None and unknown:
        _, batch = next(iter(part.batches(unknown, _FIRST_ROWS, 0)))
        for name in unknown:
            found = _first_lengths(batch.column(name), len(types[name].lengths))
            types[name] = dataclasses.replace(types[name], lengths=found)
    return types


def _first_lengths(array: Any, num_levels: int) -> tuple[int, ...]:
    """The lengths of the lists that the first row with a value is made of."""
    found, values = [], _values(array)
    for _ in range(num_levels):
        present = values.drop_null() if values.null_count else values
        values = _values(present[:1].flatten())
        found.append(len(values))
    return tuple(found)


def _row_bytes(kind: ColumnType) -> int:
    known = math.prod(length or _LIST_LENGTH for length in kind.lengths)
    return known * (max(kind.dtype.itemsize, 1) if kind.dtype else _VALUE_BYTES)


def _decoded(
    array: Any, lengths: tuple[int, ...], as_floats: bool, as_nan: bool, fail: Fail
) -> np.ndarray:
    """Returns `(rows, *lengths)` or calls `fail`; `as_nan` requires `as_floats`."""
    values, per_row = _values(array), 1
    for length in lengths:
        if as_nan and values.null_count:
            values = values.fill_null([None] * length)
        _check_nulls(values, per_row, f"a list of {length}", fail)
        _check_lengths(values, length, per_row, fail)
        values, per_row = _values(values.flatten()), per_row * length
    if as_nan and values.null_count:
        values = _as_float64(values).fill_null(math.nan)
    _check_nulls(values, per_row, "a value", fail)
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


def _values(array: Any) -> Any:
    """The values of a dictionary or a tensor."""
    if hasattr(array, "dictionary_decode"):
        return array.dictionary_decode()
    return getattr(array, "storage", array)


def _as_float64(values: Any) -> Any:
    # Decimals via text, which is read as the nearest float; Arrow itself would divide.
    values = values.cast("string") if is_decimal(values.type) else values
    return values.cast("float64", safe=False)


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
