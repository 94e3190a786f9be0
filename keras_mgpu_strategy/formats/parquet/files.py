"""Single Parquet files: what they hold, and their rows in order.

Guarantees:

* A file is open only while its metadata or its rows are read.
* Page checksums are verified if the file has them.
* What pyarrow finds wrong is an error that names the file.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_mgpu_strategy.formats.parquet.hive import key_type, keys_of
from keras_mgpu_strategy.formats.parquet.schema import (
    Schema,
    common_schema,
    schema_of,
)
from keras_mgpu_strategy.system.extras import import_extra

_BUFFER_BYTES = 2**18


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One file of a table.

    Args:
        path: The file.
        group_rows: Number of rows of each row group.
        schema: Its columns.
        keys: Keys of the folders around it that are not columns of the file.
    """

    path: pathlib.Path
    group_rows: tuple[int, ...]
    schema: Schema
    keys: dict[str, str | None]

    @property
    def num_rows(self) -> int:
        """Number of rows of the file."""
        return sum(self.group_rows)

    def batches(
        self, names: Sequence[str], size: int, start: int
    ) -> Iterator[tuple[int, Any]]:
        """Reads the file in order, see `arrow_rows.Part`."""
        position, group = 0, 0
        while position + self.group_rows[group] <= start:
            position += self.group_rows[group]
            group += 1
        groups = list(range(group, len(self.group_rows)))
        with _opened(self.path) as file:
            read = file.iter_batches(size, row_groups=groups, columns=list(names))
            for batch in read:
                skipped = min(max(start - position, 0), batch.num_rows)
                if skipped < batch.num_rows:
                    yield position + skipped, batch.slice(skipped)
                position += batch.num_rows
        if position != self.num_rows:
            raise ValueError(
                f"{self.path} ends at row {position}, expected {self.num_rows} rows. "
                "It must not change while it is read."
            )


def open_parts(files: Sequence[pathlib.Path]) -> tuple[list[Part], Schema]:
    """Reads the metadata of files.

    Returns:
        The files; and the columns that all have in common, folder keys included.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or columns differ.
        ImportError: pyarrow is missing.
    """
    parts = [_part(path) for path in files]
    common = parts[0].schema
    for part in parts[1:]:
        common = common_schema(common, part.schema, parts[0].path, part.path)
    keys = {key for key in parts[0].keys if all(key in part.keys for part in parts)}
    types = {key: key_type([part.keys[key] for part in parts]) for key in sorted(keys)}
    types = {**types, **common.types}
    return parts, Schema(
        types, common.hidden | (keys - common.types.keys()), common.nan
    )


def _part(path: pathlib.Path) -> Part:
    with _opened(path) as file:
        metadata, schema = file.metadata, schema_of(file.schema_arrow, path)
        sizes = [metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if min(sizes, default=0) < 0 or sum(sizes) != metadata.num_rows:
        raise ValueError(f"{path} is damaged: it has row groups of {sizes} rows.")
    keys = {k: v for k, v in keys_of(path).items() if k not in schema.types}
    return Part(path, tuple(sizes), schema, keys)


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
    except pyarrow.ArrowNotImplementedError as error:
        raise ValueError(f"{path} holds what pyarrow cannot read: {error}") from error
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file, or damaged: {error}") from error
