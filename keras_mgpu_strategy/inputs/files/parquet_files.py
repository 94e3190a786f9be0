"""Single Parquet files: what they hold, and their rows in order.

Guarantees:

* A file is open only while its metadata or its rows are read.
* Checksums of pages are compared where the file has them.
* What pyarrow finds wrong is an error that names the file.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from keras_mgpu_strategy.extras import import_extra
from keras_mgpu_strategy.inputs.files.arrow_columns import (
    ColumnType,
    Fail,
    column_type,
    first_lengths,
)
from keras_mgpu_strategy.inputs.files.bad_rows import BadRow
from keras_mgpu_strategy.inputs.files.paths import shorten

_BUFFER_BYTES = 2**18


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One file of a table.

    Args:
        path: The file.
        group_rows: Number of rows of each row group.
    """

    path: pathlib.Path
    group_rows: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """Number of rows of the file."""
        return sum(self.group_rows)

    def failing(self, column: str, first: int) -> Fail:
        """Returns what raises an error about a column, from row `first` on."""

        def fail(row: int, what: str) -> NoReturn:
            raise BadRow(
                f"{self.path}, column {column!r}, row {first + row} {what}. Repair the "
                "rows, or leave out the column.",
                row,
            )

        return fail


def open_parts(
    files: Sequence[pathlib.Path],
) -> tuple[list[Part], dict[str, ColumnType]]:
    """Reads the metadata of files.

    Returns:
        The files, and the types of the columns that all have in common.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or columns differ.
        ImportError: pyarrow is missing.
    """
    parts, schema = [], None
    for path in files:
        with _opened(path) as file:
            metadata, found = file.metadata, file.schema_arrow
            sizes = [metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) != metadata.num_rows:
            raise ValueError(f"{path} is damaged: it has row groups of {sizes} rows.")
        parts.append(Part(path, tuple(sizes)))
        if schema is None:
            schema = _unique(found, path)
        _check_same(schema, _unique(found, path), files[0], path)
    return parts, {name: column_type(kind) for name, kind in (schema or {}).items()}


def read_batches(
    part: Part, names: Sequence[str], size: int, start: int
) -> Iterator[tuple[int, Any]]:
    """Reads a file in order.

    Args:
        part: The file.
        names: Of the columns to read.
        size: The most rows to decode at once.
        start: The row to begin with.

    Yields:
        The index of the first row, and a record batch.
    """
    position, group = 0, 0
    while position + part.group_rows[group] <= start:
        position += part.group_rows[group]
        group += 1
    groups = list(range(group, len(part.group_rows)))
    with _opened(part.path) as file:
        for batch in file.iter_batches(size, row_groups=groups, columns=list(names)):
            skipped = min(max(start - position, 0), batch.num_rows)
            if skipped < batch.num_rows:
                yield position + skipped, batch.slice(skipped)
            position += batch.num_rows
    if position != part.num_rows:
        raise ValueError(
            f"{part.path} ends at row {position}, expected {part.num_rows} rows. It "
            "must not change while it is read."
        )


def first_list_lengths(
    parts: Sequence[Part], depths: dict[str, int]
) -> dict[str, tuple[int, ...]]:
    """Returns the lengths of the lists in the first row; empty if there is no row.

    Args:
        parts: The files.
        depths: Columns of lists, with the number of lists within each other.
    """
    part = next((part for part in parts if part.num_rows), None)
    if part is None or not depths:
        return {}
    _, batch = next(iter(read_batches(part, list(depths), 1, 0)))
    return {n: first_lengths(batch.column(n), depth) for n, depth in depths.items()}


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    use = "Reading Parquet files"
    pyarrow = import_extra("pyarrow", "parquet", use)
    parquet = import_extra("pyarrow.parquet", "parquet", use)
    try:
        # pyarrow would otherwise keep all it has read of the file (pre_buffer), or read
        # a whole column of a row group at once (buffer_size=0).
        with parquet.ParquetFile(
            path,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            yield file
    except OSError as error:
        raise OSError(f"{path} cannot be read as a Parquet file: {error}") from error
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file, or damaged: {error}") from error


def _unique(schema: Any, path: pathlib.Path) -> dict[str, Any]:
    names = list(schema.names)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"{path} has several columns of the name {shorten(map(repr, doubled))}. "
            "Rename them."
        )
    return dict(zip(names, schema.types, strict=True))


def _check_same(
    first: dict[str, Any], other: dict[str, Any], first_path: Any, path: Any
) -> None:
    for name in [*first, *other]:
        ours, theirs = first.get(name), other.get(name)
        if ours != theirs:
            raise ValueError(
                f"{path} does not have the columns of {first_path}: {name!r} is "
                f"{theirs or 'missing'}, expected {ours or 'no such column'}. Read "
                "files of one layout at a time."
            )
