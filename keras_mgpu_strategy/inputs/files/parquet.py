"""Parquet files and folders of them, through pyarrow.

Guarantees:

* Row groups are decoded a few rows at a time and once in a reading, however large
  they are. Those before the first row asked for are skipped.
* The number of rows and the columns are known, and the same columns are in every
  file, before any row is read.
* A null, a number that the model cannot hold, or a list of another length is an error
  with the file, column and row.
"""

import dataclasses
import functools
from collections.abc import Generator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs.files import hive
from keras_mgpu_strategy.inputs.files.arrow_columns import (
    ColumnType,
    decode,
    row_bytes,
)
from keras_mgpu_strategy.inputs.files.bad_rows import failing, until_bad
from keras_mgpu_strategy.inputs.files.choosing import in_structure
from keras_mgpu_strategy.inputs.files.columns import Choice, Columns, choose_columns
from keras_mgpu_strategy.inputs.files.forming import Form, form_for
from keras_mgpu_strategy.inputs.files.parquet_files import (
    Part,
    first_list_lengths,
    open_parts,
    read_batches,
)
from keras_mgpu_strategy.inputs.files.paths import Paths
from keras_mgpu_strategy.inputs.files.row_stream import TableSource
from keras_mgpu_strategy.inputs.rebatch import Rows
from keras_mgpu_strategy.types import Nest

_BATCH_BYTES, _MOST_ROWS = 2**22, 2**16


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
            the model's inputs. For a model with one input and no column of its name,
            it takes all columns of numbers if they are as many as its features, or
            else the only column of lists; never one called `row`, nor an index that
            pandas stored, nor a key of folders.
        missing_as_nan: Whether a null is NaN for inputs of floats. It is an error
            otherwise, but in columns that pandas wrote from floats, where NaN is null.
    """

    paths: Paths
    columns: Columns = None
    missing_as_nan: bool = False

    def open_rows(self, input_spec: Nest) -> TableSource:
        """Opens the files, see `FileInput`.

        A column of numbers, bools or strings gives rows of shape `()`, several
        stacked ones of shape `(columns,)`, and a column of lists, nested or not, rows
        of the lists' shape. Where the model declares another shape for as many values,
        rows are brought into it.

        Raises:
            OSError: There is no such file, or it cannot be read.
            ValueError: A file is damaged, the files differ in their columns, or these
                do not fit the model.
            ImportError: pyarrow is missing.
        """
        files = hive.list_tables(self.paths)
        parts, schema = open_parts(files.files)
        kinds = {name: kind.kind for name, kind in schema.types.items()}
        where, hidden = parts[0].path, schema.hidden
        choices = choose_columns(kinds, self.columns, input_spec, where, hidden)
        types = {**schema.types, **_keys_as_text(parts[0], choices)}
        types = _with_lengths(parts, types, choices)
        columns = [_ChosenColumns(c, types, self.missing_as_nan) for c in choices]
        num_rows = sum(part.num_rows for part in parts)
        spec = in_structure(input_spec, [column.form.spec for column in columns])
        names = [choice.columns for choice in choices]
        identity = files.identity(num_rows, names, self.missing_as_nan)
        return TableSource(_Reader(parts, columns).read, num_rows, spec, identity)


def _keys_as_text(part: Part, choices: list[Choice]) -> dict[str, ColumnType]:
    """The types of keys for inputs of strings: 007 stays 007."""
    texts = [choice for choice in choices if choice.input.wanted == tf.string]
    names = {name for choice in texts for name in choice.columns}
    return dict.fromkeys(names & part.keys.keys(), hive.TEXT_KEY)


def _with_lengths(
    parts: list[Part], types: dict[str, ColumnType], choices: list[Choice]
) -> dict[str, ColumnType]:
    """Looks at the first row for lengths of lists that types do not tell."""
    names = {name for choice in choices for name in choice.columns}
    chosen = {name: types[name] for name in types if name in names}
    unknown = [name for name in chosen if None in chosen[name].lengths]
    found = first_list_lengths(parts, {n: len(chosen[n].lengths) for n in unknown})
    for name, lengths in found.items():
        chosen[name] = dataclasses.replace(chosen[name], lengths=lengths)
    return chosen


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
        fail = failing(part.path, name, first)
        if name in part.keys:
            value = part.keys[name]
            return hive.key_values(value, kind, batch.num_rows, as_nan, fail)
        lengths = tuple(length or 0 for length in kind.lengths)
        return decode(batch.column(name), lengths, is_float, as_nan, fail)


class _Reader:
    """Reads chosen columns of files in order."""

    def __init__(self, parts: list[Part], columns: list[_ChosenColumns]) -> None:
        self._parts = parts
        self._columns = columns
        self._names = {name for column in columns for name in column.names}
        bytes_per_row = sum(column.row_bytes for column in columns)
        self._size = min(max(_BATCH_BYTES // max(bytes_per_row, 1), 1), _MOST_ROWS)

    def read(self, start: int) -> Generator[Rows, None, None]:
        """Yields all rows from `start` on."""
        for part in self._parts:
            if start < part.num_rows:
                yield from self._read_part(part, start)
            start = max(start - part.num_rows, 0)

    def _read_part(self, part: Part, start: int) -> Generator[Rows, None, None]:
        names = sorted(self._names - part.keys.keys())
        for first, batch in read_batches(part, names, self._size, start):
            decode = functools.partial(self._decode, part, batch, first)
            yield from until_bad(batch.num_rows, decode)

    def _decode(self, part: Part, batch: Any, first: int, num_rows: int) -> Rows:
        some = batch.slice(0, num_rows)
        flat = [column.read(part, some, first) for column in self._columns]
        return Rows(flat, num_rows)
