"""Results in a `.csv` file (RFC 4180, UTF-8), for small tables of classes.

Columns are `row`, `file` if rows have names, those that rows come with, then `NAME`, or
`NAME_0` and so on; empty cells for a missing row. Numbers have the fewest digits that
read back exactly.
"""

import csv
import io
import pathlib
from collections.abc import Iterable

import numpy as np

from keras_mgpu_strategy.formats.csv.texts import check_texts, check_types, texts_of
from keras_mgpu_strategy.outputs.column_names import unique
from keras_mgpu_strategy.outputs.durable import Appender, damaged, file_size, remove
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.refusals import (
    check_kept_names,
    check_kinds,
    check_lengths,
    decoded,
)
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.types import HostBatch

_MOST_COLUMNS = 1000
_ROWS_AT_A_TIME = 2**12


class CsvFormat:
    """Makes `.csv` files; see `FileFormat`."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing."""
        check_lengths(layout, ".csv")
        check_kinds(layout, ".csv", "biufO")
        for column in layout.columns:
            if len(column.row_shape) > 1:
                raise ValueError(
                    f"A .csv output cannot hold output {column.name!r}, whose rows "
                    f"have shape {column.row_shape}. Expected a number or a vector "
                    "for each row. Give a .parquet or .npy output."
                )
        num_columns = sum(len(_names(column)) for column in layout.columns)
        if layout.kept is not None:
            check_types(layout.kept)
            check_kept_names(layout.kept.names, _output_names(layout))
            num_columns += len(layout.kept.names)
        if num_columns > _MOST_COLUMNS:
            raise ValueError(
                f"A .csv output would have {num_columns} columns, expected at most "
                f"{_MOST_COLUMNS}. Give a .parquet or .npy output."
            )

    def create(self, path: pathlib.Path, layout: Layout) -> "CsvSink":
        """Begins a new file at `path`, in place of what may be there."""
        self.check(layout)
        remove(path)
        file = Appender(path)
        try:
            num_bytes = file.put(_header(layout), 0)
        except OSError:
            file.close()
            raise
        return CsvSink(file, layout, layout.first_row, num_bytes)

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> "CsvSink":
        """Resumes a file that `create` began, after the rows of `mark`."""
        header, row = _header(layout), row_of(path, layout, mark)
        kept = mark.get("bytes", 0)
        _check_kept(path, header, kept)
        return CsvSink(Appender(path, kept), layout, row, kept)


class CsvSink(RowSink):
    """See the module; made by `CsvFormat`."""

    def __init__(
        self, file: Appender, layout: Layout, num_written: int, num_bytes: int
    ):
        super().__init__(layout, num_written)
        self._file, self._num_bytes = file, num_bytes

    def _fitting(self, rows: HostBatch) -> HostBatch:
        if (kept := rows.marks.kept) is not None:
            check_texts(kept, rows.start)
        return decoded(self._layout, rows, ".csv", keeps_nul=False)

    def _limit(self) -> int:
        return self._num_written + _ROWS_AT_A_TIME

    def _append(self, rows: HostBatch) -> None:
        lines = zip(*_cells(rows), strict=True)
        self._num_bytes = self._file.put(_encoded(lines), self._num_bytes)

    def _sync(self) -> dict[str, int]:
        self._file.sync()
        return {"bytes": self._num_bytes}

    def _complete(self) -> None:
        self._file.end_at(self._num_bytes)
        self._file.sync()

    def _release(self) -> None:
        self._file.close()


def _header(layout: Layout) -> bytes:
    first = ["row", "file"] if layout.has_names else ["row"]
    kept = [] if layout.kept is None else layout.kept.names
    return _encoded([[*first, *kept, *_output_names(layout)]])


def _output_names(layout: Layout) -> list[str]:
    taken = ["row", "file"] if layout.has_names else ["row"]
    names = [name for column in stored_columns(layout) for name in _names(column)]
    return unique(names, taken)


def _names(column: Column) -> list[str]:
    if not column.row_shape:
        return [column.name]
    return [f"{column.name}_{index}" for index in range(column.row_shape[0])]


def _cells(rows: HostBatch) -> list[list[str]]:
    columns = [[str(row) for row in range(rows.start, rows.stop)]]
    if rows.marks.names is not None:
        columns.append([*rows.marks.names])
    if (kept := rows.marks.kept) is not None:
        columns += map(texts_of, kept.columns)
    for array in rows.outputs:
        array = array.reshape(len(array), -1) if array.size else array
        if array.dtype.kind == "b":
            texts = np.where(array, "true", "false")
        else:
            texts = array if array.dtype == object else array.astype(str)
        if rows.marks.missing is not None:
            texts[rows.marks.missing] = ""
        columns.extend(texts.T.tolist())
    return columns


def _encoded(lines: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _check_kept(path: pathlib.Path, header: bytes, kept: int) -> None:
    size = file_size(path)
    if size < kept or kept < len(header):
        least = max(kept, len(header))
        raise damaged(path, f"has {min(size, kept)} bytes, expected at least {least}")
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            raise damaged(path, "does not begin with the names of these outputs")
        file.seek(kept - 1)
        if file.read(1) != b"\n":
            raise damaged(path, f"has no end of a line at byte {kept}")
