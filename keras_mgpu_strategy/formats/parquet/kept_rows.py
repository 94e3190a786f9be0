"""Columns that rows come with, in the types that a Parquet file gives back."""

import functools
import io
from typing import Any

from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.sources.arrow_values import joined

_MOST_PIECES = 256


class Pieces:
    """Rows of such columns, in order, a few at a time."""

    def __init__(self, layout: Layout):
        self._schema = stored_kept(layout)
        self._blocks: list[Any] = []
        self._last: list[Any] = []

    def put(self, offset: int, rows: Any) -> None:
        """Adds rows at a place, after which there are none."""
        if self._schema is None:
            return
        if offset != self._num_rows:  # as after an error
            self._blocks, self._last = [self.rows(0, offset)], []
        self._last.append(rows)
        if len(self._last) == _MOST_PIECES:
            self._blocks.append(self._joined(self._last).combine_chunks())
            self._last = []

    def rows(self, start: int, stop: int) -> Any:
        """Returns the rows at some places; None without columns."""
        if self._schema is None:
            return None
        table = self._joined([*self._blocks, *self._last])
        return table.slice(start, stop - start)

    def _joined(self, tables: list[Any]) -> Any:
        return joined(self._schema, tables)

    @property
    def _num_rows(self) -> int:
        return sum(table.num_rows for table in [*self._blocks, *self._last])


def stored_kept(layout: Layout) -> Any:
    """The schema in which the columns are stored; None without any."""
    return None if layout.kept is None else _stored(layout.kept)


def as_stored(layout: Layout, kept: Any) -> Any:
    """Returns columns in the types in which they are stored."""
    return None if kept is None else kept.cast(stored_kept(layout))


@functools.lru_cache(maxsize=16)
def _stored(schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for field in schema:
        try:
            if "dictionary<" in str(field.type):
                raise pa.ArrowNotImplementedError("it holds dictionaries")
            file = io.BytesIO()
            pq.write_table(pa.schema([field]).empty_table(), file)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"A .parquet output cannot hold the kept column {field.name!r} of type "
                f"{field.type}: {error}. Convert it first, such as to strings, or "
                "leave it out of keep."
            ) from error
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    file.seek(0)
    found = pq.read_schema(file)
    return pa.schema([(field.name, field.type) for field in found])
