"""Columns that are stored beside the results, as Arrow tables of some rows.

A column has one type, which no chunk of it can change. Categories are their values.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.digests.samples import digest_of_rows
from keras_mgpu_strategy.sources.arrow_values import bytes_of, joined, row_bytes
from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import NO_MARKS, Origin, RowMarks, Source


def schema_of(source: Any) -> Any:
    """The `pyarrow.Schema` of the columns that a source keeps; None without any."""
    return getattr(source, "kept_schema", None)


class KeptStream:
    """Columns that are read with the rows; without a `schema` there are none."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._beside: Beside[Any] = Beside(lambda table, a, b: table.slice(a, b - a))
        self.restart, self.put = self._beside.restart, self._beside.put
        self.drop_before = self._beside.drop_before

    def passing(
        self, pieces: Generator[Rows, None, None], start: int
    ) -> Generator[Rows, None, None]:
        """Passes on rows from row `start` on, and takes their columns."""
        self.restart(start)
        with contextlib.closing(pieces):
            for rows in pieces:
                self.put(start, rows.num_rows, rows.columns)
                start += rows.num_rows
                yield rows

    def marks(self, start: int, stop: int) -> RowMarks:
        """The columns of rows that have passed."""
        if self.schema is None:
            return NO_MARKS
        return RowMarks(kept=joined(self.schema, self._beside.between(start, stop)))


@dataclasses.dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column in memory: its Arrow type, and what reads rows of it in this type."""

    arrow_type: Any
    num_rows: int
    read: Callable[[int, int], Any]


class WithKept(Wrapped):
    """A source of rows in memory, with columns that are read by position."""

    def __init__(self, source: Source, columns: Mapping[str, KeptColumn]) -> None:
        import pyarrow as pa

        super().__init__(source)
        self._columns = columns
        pairs = [(name, column.arrow_type) for name, column in columns.items()]
        self.kept_schema = pa.schema(pairs)

    def marks(self, start: int, stop: int) -> RowMarks:
        """The columns of some rows."""
        return RowMarks(kept=self._table(start, stop))

    def origin(self) -> Origin:
        """What distinguishes the rows, and the values of the columns, from others."""
        origin, size = origin_of(self._source), row_bytes(self.kept_schema)
        digest = digest_of_rows(self._bytes, self.num_rows or 0, size)
        about = {**origin.about, "values of the kept columns": digest}
        return dataclasses.replace(origin, about=about)

    def _table(self, start: int, stop: int) -> Any:
        import pyarrow as pa

        arrays = [column.read(start, stop) for column in self._columns.values()]
        return pa.Table.from_arrays(arrays, schema=self.kept_schema)

    def _bytes(self, start: int, stop: int) -> np.ndarray:
        return bytes_of(self._table(start, stop))
