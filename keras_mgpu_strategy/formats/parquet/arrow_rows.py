"""Rows of Arrow tables, in files or in memory.

Guarantees:

* A few rows are decoded at a time, each once per pass.
* A null, a number that the model cannot hold, or a list of another length is an error
  with the table, column and row.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import Choice, Form, form_for
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.parquet.arrow_columns import (
    ColumnType,
    decode,
    first_lengths,
    row_bytes,
)
from keras_mgpu_strategy.formats.parquet.schema import Schema
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.row_errors import failing, until_bad

_FIRST_ROWS = 64
_BATCH_BYTES, _MOST_ROWS = 2**22, 2**16


class Part(Protocol):
    """One table, whose rows follow those of another one."""

    @property
    def path(self) -> object:
        """Names it in messages."""
        ...

    @property
    def schema(self) -> Schema:
        """Its columns."""
        ...

    @property
    def keys(self) -> Mapping[str, str | None]:
        """Values of columns that all its rows share, and that it does not store."""
        ...

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        ...

    def batches(
        self, names: Sequence[str], size: int, start: int
    ) -> Iterator[tuple[int, Any]]:
        """Reads it in order.

        Args:
            names: Of the columns to read.
            size: The most rows to decode at once.
            start: The row to begin with.

        Yields:
            The index of the first row, and a record batch.
        """
        ...


class ArrowRows:
    """Chosen columns of tables.

    Args:
        parts: The tables.
        schema: The columns that all have in common.
        choices: Those to read, for each model input.
        missing_as_nan: Whether a null becomes NaN for float inputs.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        schema: Schema,
        choices: Sequence[Choice],
        missing_as_nan: bool,
    ) -> None:
        types = {**schema.types, **_keys_as_text(parts, choices)}
        types = _with_lengths(parts, types, choices)
        self._parts = parts
        self._columns = [_ChosenColumns(c, types, missing_as_nan) for c in choices]
        self._names = {name for choice in choices for name in choice.columns}
        bytes_per_row = sum(column.row_bytes for column in self._columns)
        self._size = min(max(_BATCH_BYTES // max(bytes_per_row, 1), 1), _MOST_ROWS)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return sum(part.num_rows for part in self._parts)

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """The rows of each input."""
        return [column.form.spec for column in self._columns]

    def read(self, start: int) -> Generator[Rows, None, None]:
        """Yields all rows from `start` onwards."""
        for part in self._parts:
            if start < part.num_rows:
                yield from self._read_part(part, start)
            start = max(start - part.num_rows, 0)

    def _read_part(self, part: Part, start: int) -> Generator[Rows, None, None]:
        names = sorted(self._names - part.keys.keys())
        for first, batch in part.batches(names, self._size, start):
            decode = functools.partial(self._decode, part, batch, first)
            yield from until_bad(batch.num_rows, decode)

    def _decode(self, part: Part, batch: Any, first: int, num_rows: int) -> Rows:
        some = batch.slice(0, num_rows)
        flat = [column.read(part, some, first) for column in self._columns]
        return Rows(flat, num_rows)


class _ChosenColumns:
    """The columns of one model input."""

    def __init__(
        self, choice: Choice, types: dict[str, ColumnType], missing_as_nan: bool
    ) -> None:
        self.names = choice.columns
        self._types = {name: types[name] for name in choice.columns}
        cells = [(types[name].dtype, types[name].lengths) for name in choice.columns]
        self.form: Form = form_for(choice, cells, missing_as_nan)
        self.row_bytes = sum(map(row_bytes, self._types.values()))
        self._missing_as_nan = missing_as_nan

    def read(self, part: Part, batch: Any, first: int) -> np.ndarray:
        """Returns the input's rows of a record batch that begins at row `first`."""
        cells = [self._values(part, batch, name, first) for name in self.names]
        return self.form.join(cells, first, part.path)

    def _values(self, part: Part, batch: Any, name: str, first: int) -> np.ndarray:
        kind, is_float = self._types[name], self.form.cast.dtype.is_floating
        as_nan = is_float and (self._missing_as_nan or name in part.schema.nan)
        fail = failing(f"{part.path}, column {name!r}", first)
        if name in part.keys:
            value = part.keys[name]
            return hive.key_values(value, kind, batch.num_rows, as_nan, fail)
        lengths = tuple(length or 0 for length in kind.lengths)
        return decode(batch.column(name), lengths, is_float, as_nan, fail)


def _keys_as_text(
    parts: Sequence[Part], choices: Sequence[Choice]
) -> dict[str, ColumnType]:
    """The types of keys for string inputs: 007 stays 007."""
    texts = [choice for choice in choices if choice.input.wanted == tf.string]
    names = {name for choice in texts for name in choice.columns}
    return dict.fromkeys(names & parts[0].keys.keys(), hive.TEXT_KEY)


def _with_lengths(
    parts: Sequence[Part], types: Mapping[str, ColumnType], choices: Sequence[Choice]
) -> dict[str, ColumnType]:
    """Takes from the first rows the list lengths that types do not give."""
    names = {name for choice in choices for name in choice.columns}
    chosen = {name: types[name] for name in types if name in names}
    unknown = [name for name in chosen if None in chosen[name].lengths]
    part = next((part for part in parts if part.num_rows), None)
    if part is not None and unknown:
        _, batch = next(iter(part.batches(unknown, _FIRST_ROWS, 0)))
        for name in unknown:
            found = first_lengths(batch.column(name), len(chosen[name].lengths))
            chosen[name] = dataclasses.replace(chosen[name], lengths=found)
    return chosen
