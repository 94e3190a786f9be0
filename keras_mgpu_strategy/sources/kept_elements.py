"""Columns that are kept of streams: entries of the dicts that come as batches.

The first batch says what type a column has. Arrays are copied, since a producer may
reuse their memory.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.samples import digest_of_array
from keras_mgpu_strategy.sources.arrow_values import bytes_of
from keras_mgpu_strategy.sources.kept_columns import column_of
from keras_mgpu_strategy.sources.streams import Form, StreamSource, inputs_of
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import Origin, RowMarks


class KeptElements(Wrapped):
    """A stream with the entries `names` of the dict in each of its elements."""

    def __init__(self, source: StreamSource, names: Sequence[str]) -> None:
        super().__init__(source)
        self._names, self._beside = names, source.beside
        self._first_row: dict[str, Any] = {}
        source.companions.append(self._with_columns)

    @property
    def kept_schema(self) -> Any:
        """The columns, from the first element; None without any element."""
        if self._beside.schema is None:
            self._source.origin()  # type: ignore[attr-defined]
        return self._beside.schema

    def origin(self) -> Origin:
        """What distinguishes the first row, with its columns, from others."""
        origin: Origin = self._source.origin()  # type: ignore[attr-defined]
        return dataclasses.replace(origin, about={**origin.about, **self._first_row})

    def _with_columns(
        self, marks: RowMarks, element: Any, first_row: int, num_rows: int
    ) -> RowMarks:
        table = self._table(inputs_of(element), num_rows)
        if self._beside.schema is None:
            self._beside.schema = table.schema
            first = digest_of_array(bytes_of(table.slice(0, 1)))
            self._first_row = {"first row of the kept columns": first}
        if table.schema != self._beside.schema:
            raise ValueError(
                f"received columns to keep of types {_shown(table.schema)}, expected "
                f"{_shown(self._beside.schema)} as in batch 0. Convert them to one "
                "type."
            )
        return dataclasses.replace(marks, kept=table)

    def _table(self, entries: Mapping[str, Any], num_rows: int) -> Any:
        import pyarrow as pa

        columns = {}
        for name in self._names:
            column = column_of(_copied(entries[name]), f"keep: {name!r}")
            if column.num_rows != num_rows:
                raise ValueError(
                    f"keep: {name!r} has {column.num_rows} values, expected one for "
                    f"each of the {num_rows} rows."
                )
            columns[name] = column.read(0, num_rows)
        return pa.table(columns)


def without_entries(
    form: Form,
    names: Collection[str],
    own: Collection[str],
    check: Callable[[Any], None],
) -> Form:
    """Returns a form of elements without entries, except the model's `own` ones."""

    def rest(element: Any) -> Any:
        x = inputs_of(element)
        check(x)
        left = {key: x[key] for key in x if key not in names or key in own}
        return left if x is element else (left, *element[1:])

    return lambda element: form(rest(element))


def _copied(values: Any) -> Any:
    if isinstance(values, tf.Tensor) and values.dtype != tf.string:
        return values.numpy()
    return np.array(values) if isinstance(values, np.ndarray) else values


def _shown(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
