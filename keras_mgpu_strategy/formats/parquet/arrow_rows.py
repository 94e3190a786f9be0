"""Rows of Arrow tables, in files or memory, decoded a few at a time, once per pass.

All values of a column have one shape. A null, a number that the model cannot hold or a
list of another length is an error with the row. Numbers are not copied if they need not
be, decimals become the nearest floats or stay, strings are `bytes`.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import Choice, form_for
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.parquet.decoding import (
    arrow_values,
    check_lengths,
    decoded,
    first_lengths,
)
from keras_mgpu_strategy.formats.parquet.kept import KeptArrowColumns
from keras_mgpu_strategy.formats.parquet.ragged_columns import RaggedColumn, is_ragged
from keras_mgpu_strategy.formats.parquet.schema import ColumnType, Part, Schema
from keras_mgpu_strategy.sources.arrow_values import row_bytes
from keras_mgpu_strategy.sources.ragged_leaf import check_same_lengths
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.row_errors import Fail, failing, until_bad
from keras_mgpu_strategy.types import RowMarks

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
        *,
        ragged: bool = False,
    ) -> None:
        firsts = [(choice, choice.columns[0]) for choice in choices if ragged]
        varying = {n for choice, n in firsts if is_ragged(choice, schema.types[n])}
        types = _types(parts, schema, choices, varying)
        self._kept, self.kept_schema = kept, kept.schema
        self._parts, self.num_rows = parts, sum(part.num_rows for part in parts)
        self._columns = [
            RaggedColumn(choice, types[choice.columns[0]], missing_as_nan)
            if varying.intersection(choice.columns)
            else _ArrowColumns(choice, types, missing_as_nan)
            for choice in choices
        ]
        self.specs = [column.spec for column in self._columns]
        self.tokens = [column.tokens for column in self._columns]
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
                    decode = functools.partial(self._decode, part, batch, first)
                    yield from until_bad(batch.num_rows, decode)
            start = max(start - part.num_rows, 0)

    def _decode(self, part: Part, batch: Any, first: int, num_rows: int) -> Rows:
        some = batch.slice(0, num_rows)
        flat: list[Any] = [column.read(part, some, first) for column in self._columns]
        pairs = zip(self._columns, flat, strict=True)
        named = [
            (f"column {column.name!r}", leaf.lengths)
            for column, leaf in pairs
            if isinstance(column, RaggedColumn)
        ]
        check_same_lengths(named, first, f"{part.path}, ")
        marks = RowMarks(kept=self._kept.read(part, some))
        return Rows(flat, num_rows, marks=marks)


class _ArrowColumns:
    def __init__(
        self, choice: Choice, types: Mapping[str, ColumnType], missing_as_nan: bool
    ) -> None:
        self._types = {name: types[name] for name in choice.columns}
        cells = [(types[name].dtype, types[name].lengths) for name in choice.columns]
        self.form = form_for(choice, cells, missing_as_nan)
        self.spec, self.tokens = self.form.spec, 1
        self._missing_as_nan = missing_as_nan

    def read(self, part: Part, batch: Any, first: int) -> np.ndarray:
        values = functools.partial(self._values, part, batch)
        return self.form.join(values, first, part.path)

    def _values(self, part: Part, batch: Any, name: str, fail: Fail) -> np.ndarray:
        kind, is_float = self._types[name], self.form.cast.dtype.is_floating
        as_nan = is_float and (self._missing_as_nan or name in part.schema.nan)
        if name in part.keys:
            value = part.keys[name]
            return hive.key_values(value, kind, batch.num_rows, as_nan, fail)
        lengths = tuple(length or 0 for length in kind.lengths)
        return decoded(batch.column(name), lengths, is_float, as_nan, fail)


def _types(
    parts: Sequence[Part],
    schema: Schema,
    choices: Sequence[Choice],
    varying: Collection[str],
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
            array, num_levels = batch.column(name), len(types[name].lengths)
            if name in varying:
                found = _ragged_lengths(array, num_levels, parts, name)
            else:
                found = first_lengths(array, num_levels)
                if not array.null_count:  # refuses unequal lengths before any work
                    fail = failing(f"{part.path}, column {name!r}", 0)
                    check_lengths(arrow_values(array), found[0], 1, fail)
            types[name] = dataclasses.replace(types[name], lengths=found)
    return types


def _ragged_lengths(
    array: Any, num_levels: int, parts: Sequence[Part], name: str
) -> tuple[int, ...]:
    """About how many tokens a row has, and the lengths of the lists in a token."""
    rows = arrow_values(array)
    flat = arrow_values(rows.flatten())
    known = max(part.tokens.get(name, 0) for part in parts)
    mean = -(-len(flat) // max(len(rows), 1))
    return (known or mean, *first_lengths(flat, num_levels - 1))


def _row_bytes(kind: ColumnType) -> int:
    known = math.prod(length or _LIST_LENGTH for length in kind.lengths)
    return known * (max(kind.dtype.itemsize, 1) if kind.dtype else _VALUE_BYTES)
