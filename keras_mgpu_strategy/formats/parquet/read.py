"""Parquet files and folders of them, through pyarrow, a few rows at a time.

Each row is decoded once per pass. The number of rows and the columns are known, and the
same in every file, before any row is read. Page checksums are verified; what pyarrow
finds wrong is an error that names the file.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_mgpu_strategy.formats.choosing import in_structure, present_inputs
from keras_mgpu_strategy.formats.columns import Columns, choose_columns
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.parquet.arrow_rows import ArrowRows
from keras_mgpu_strategy.formats.parquet.kept import KeptArrowColumns
from keras_mgpu_strategy.formats.parquet.schema import (
    Part,
    Schema,
    common_schema,
    schema_of,
)
from keras_mgpu_strategy.formats.paths import Paths, short_repr
from keras_mgpu_strategy.sources.tables import TableSource
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_BUFFER_BYTES = 2**18


@short_traceback
@dataclasses.dataclass(frozen=True)
class Parquet:
    """Rows of a Parquet file, of a folder of such files, or of a list of them.

    Args:
        paths: A file, a folder or a list of files. The files of a folder, and of
            folders in it that are named `key=value`, are read sorted by name; names
            that begin with `_` or `.` are left out.
        columns: Names of the columns: for a model with one input, a column or several
            to be stacked; for one with several inputs, one per input in the order of
            the model; or a dict of these by input. None takes columns by the names of
            the model's inputs. For a model with one input and no column of its name, it
            takes all numeric columns if there are as many as its features, or else the
            only column of lists; never one called `row`, nor an index that pandas
            stored, nor a folder key.
        missing_as_nan: Whether a null becomes NaN for float inputs. Otherwise it is an
            error, except in columns that pandas wrote from floats, where NaN is null.
    """

    paths: Paths
    columns: Columns = None
    missing_as_nan: bool = False
    __repr__ = short_repr

    def open_rows(
        self, input_spec: Nest, keep: Sequence[str] = (), *, ragged: bool = False
    ) -> TableSource:
        """Opens the files, see `FileInput`; columns of `keep` travel beside the rows.

        A column of numbers, bools or strings gives rows of shape `()`, several stacked
        ones of shape `(columns,)`, and a column of lists, nested or not, rows of the
        lists' shape. If the model declares another shape with as many values, rows are
        reshaped to it. If `ragged`, lists are rows that may differ in length, unless
        the model declares their length.

        Raises:
            OSError: There is no such file, or it cannot be read.
            ValueError: A file is damaged, the files differ in their columns, or these
                do not fit the model.
            ImportError: pyarrow is missing.
        """
        files = hive.list_tables(self.paths)
        parts, schema = _open(files.files)
        kinds = {name: kind.kind for name, kind in schema.types.items()}
        where, hidden = parts[0].path, schema.hidden | set(keep)
        kept = KeptArrowColumns(parts, schema, keep)
        input_spec = present_inputs(input_spec, kinds, self.columns)
        choices = choose_columns(kinds, self.columns, input_spec, where, hidden)
        as_nan = self.missing_as_nan
        rows = ArrowRows(parts, schema, choices, as_nan, kept, ragged=ragged)
        names = [choice.columns for choice in choices]
        identity = files.identity(rows.num_rows, names, self.missing_as_nan)
        spec = in_structure(input_spec, rows.specs)
        return TableSource(rows.read, rows.num_rows, spec, identity, kept.schema)


def _open(files: Sequence[pathlib.Path]) -> tuple[list[Part], Schema]:
    """The files; and the columns that all have in common, folder keys included."""
    parts = list(map(_part, files))
    common = parts[0].schema
    for part in parts[1:]:
        common = common_schema(common, part.schema, parts[0].path, part.path)
    keys = {key for key in parts[0].keys if all(key in part.keys for part in parts)}
    types = {
        key: hive.key_type([part.keys[key] for part in parts]) for key in sorted(keys)
    }
    hidden = common.hidden | (keys - common.types.keys())
    return parts, Schema({**types, **common.types}, hidden, common.nan)


def _part(path: pathlib.Path) -> Part:
    with _opened(path) as file:
        metadata, arrow = file.metadata, file.schema_arrow
        schema = schema_of(arrow, path)
        groups = [metadata.row_group(i) for i in range(file.num_row_groups)]
        sizes = [group.num_rows for group in groups]
    if min(sizes, default=0) < 0 or sum(sizes) != metadata.num_rows:
        raise ValueError(f"{path} is damaged: it has row groups of {sizes} rows.")
    keys = {k: v for k, v in hive.keys_of(path).items() if k not in schema.types}
    read = functools.partial(_batches, path, sizes)
    return Part(path, schema, arrow, sum(sizes), read, keys, _tokens(groups))


def _tokens(groups: Sequence[Any]) -> dict[str, int]:
    """How many values a row of a column has on average, where there are the most."""
    found: dict[str, int] = {}
    for group in groups:
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema.split(".")[0]
            mean = -(-column.num_values // max(group.num_rows, 1))
            found[name] = max(mean, found.get(name, 1))
    return found


def _batches(
    path: pathlib.Path, sizes: list[int], names: Sequence[str], size: int, start: int
) -> Iterator[tuple[int, Any]]:
    """Reads a file in order, see `Part`."""
    ends = list(itertools.accumulate(sizes))
    group = bisect.bisect_right(ends, start)
    position, groups = ends[group] - sizes[group], list(range(group, len(sizes)))
    with _opened(path) as file:
        read = file.iter_batches(size, row_groups=groups, columns=list(names))
        for batch in read:
            skipped = min(max(start - position, 0), batch.num_rows)
            if skipped < batch.num_rows:
                yield position + skipped, batch.slice(skipped)
            position += batch.num_rows
    if position != ends[-1]:
        raise ValueError(
            f"{path} ends at row {position}, expected {ends[-1]} rows. It must not "
            "change while it is read."
        )


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
        raise ValueError(
            f"{path} is not a Parquet file, or damaged: {error}"
        ) from error
