"""CSV files, read through pandas a piece at a time.

Guarantees:

* Memory is bounded by a piece of a few thousand rows.
* Names stay above their own columns, see `layout.py`.
* Numbers have the dtype that the model declares, or that of the first rows if it
  declares none, throughout the file. Text columns are never read as numbers.
* A missing value, or one that does not fit, is an error with the file, column and row.
"""

import dataclasses
import functools
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.choosing import in_structure, present_inputs
from keras_mgpu_strategy.formats.columns import (
    Choice,
    Columns,
    choose_columns,
    form_for,
)
from keras_mgpu_strategy.formats.csv.table import CsvTable
from keras_mgpu_strategy.formats.csv.values import as_values, wanted_dtype
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.sources.rebatch import Rows, TableSource
from keras_mgpu_strategy.sources.row_errors import failing, until_bad
from keras_mgpu_strategy.types import Nest

_PIECE_VALUES = 2**19
_OURS = ("chunksize", "iterator", "usecols", "index_col", "nrows")


@dataclasses.dataclass(frozen=True)
class Csv:
    """Rows of a CSV file; their number is known only after reading to the end.

    The first line names the columns. One with numbers among its names is refused, as it
    may be a row: `read_options={"header": None}` says that it is one, and names the
    columns `"0"`, `"1"` and so on; `{"header": 0}` says that it has the names;
    `{"header": None, "names": [...]}` gives them. In lines without a comma, a
    semicolon, tab or bar is detected as the separator. Otherwise give `sep`.

    Args:
        path: The file, which may be compressed (`.csv.gz`, or any other name).
        columns: Names of the columns: for a model with one input, a column or several
            to be stacked; for one with several inputs, one per input in the order of
            the model; or a dict of these by input. None takes columns by the names of
            the model's inputs. For a model with one input and no column of its name, it
            takes all numeric columns if there are as many as its features; never one
            called `row`, nor one without a name.
        read_options: Arguments for `pandas.read_csv`, such as `{"sep": ";"}`,
            `{"decimal": ","}` or `{"encoding": "latin-1"}`.
        missing_as_nan: Whether a missing value becomes NaN for float inputs. Otherwise
            it is an error.
    """

    path: PathLike
    columns: Columns = None
    read_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing_as_nan: bool = False

    def open_rows(self, input_spec: Nest) -> TableSource:
        """Opens the file, see `FileInput`.

        A column gives rows of shape `()`, several stacked ones of shape `(columns,)`.
        If the model declares another shape with as many values, rows are reshaped to
        it.

        Raises:
            OSError: There is no such file.
            ValueError: It is damaged, its first line may be names or a row, or its
                columns do not fit the model.
            ImportError: pandas is missing.
        """
        files = one_file(self.path, "CSV")
        _check_options(self.read_options)
        table = CsvTable(files.files[0], self.read_options)
        kinds, hidden = table.kinds, table.layout.hidden
        input_spec = present_inputs(input_spec, kinds, self.columns)
        choices = choose_columns(kinds, self.columns, input_spec, table.path, hidden)
        if self.columns is None:
            table.check_names(choices)
        columns = [_ChosenColumns(table, c, self.missing_as_nan) for c in choices]
        spec = in_structure(input_spec, [column.form.spec for column in columns])
        names = [choice.columns for choice in choices]
        how = dict(self.read_options)
        identity = files.identity(None, names, self.missing_as_nan, how=how)
        return TableSource(_Reader(table, columns).read, None, spec, identity)


class _ChosenColumns:
    """The columns of one model input."""

    def __init__(self, table: CsvTable, choice: Choice, missing_as_nan: bool) -> None:
        self.names = choice.columns
        spec = choice.input.spec
        self.dtypes = [wanted_dtype(spec, *table.seen(name)) for name in self.names]
        cells = [(dtype, ()) for dtype in self.dtypes]
        self.form = form_for(choice, cells, missing_as_nan)
        pairs = zip(self.names, self.dtypes, strict=True)
        self.texts = [name for name, dtype in pairs if dtype.kind == "S"]
        self._as_nan = missing_as_nan and self.form.cast.dtype.is_floating
        self._table = table

    def read(self, piece: Any, first: int) -> np.ndarray:
        """Returns the input's rows of a piece that begins at row `first`."""
        cells, path = [], self._table.path
        for name, dtype in zip(self.names, self.dtypes, strict=True):
            how = (
                self._table.numbers,
                self._as_nan,
                failing(f"{path}, column {name!r}", first),
            )
            cells.append(as_values(piece[name], dtype, *how))
        return self.form.join(cells, first, path)


class _Reader:
    """Reads chosen columns of a CSV file in order."""

    def __init__(self, table: CsvTable, columns: list[_ChosenColumns]) -> None:
        self._table = table
        self._columns = columns
        self._size = max(_PIECE_VALUES // max(len(table.layout.names), 1), 1)

    def read(self, start: int) -> Generator[Rows, None, None]:
        """Yields all rows from `start` onwards."""
        texts = [name for column in self._columns for name in column.texts]
        first = 0
        for piece in self._table.pieces(texts, self._size):
            skipped = min(max(start - first, 0), len(piece))
            decode = functools.partial(
                self._decode, piece.iloc[skipped:], first + skipped
            )
            yield from until_bad(len(piece) - skipped, decode)
            first += len(piece)
        if start > first:
            raise ValueError(
                f"Received start={start}, but {self._table.path} has only {first} rows."
            )

    def _decode(self, piece: Any, first: int, num_rows: int) -> Rows:
        some = piece.iloc[:num_rows]
        self._table.check_rest(some, first)
        return Rows([column.read(some, first) for column in self._columns], num_rows)


def _check_options(options: Mapping[str, Any]) -> None:
    if not isinstance(options, Mapping):
        raise TypeError(
            f"Received read_options={options!r:.80}, expected a dict of arguments for "
            "pandas.read_csv."
        )
    given = {name: options[name] for name in _OURS if name in options}
    # index_col=False, as pandas advises for rows that end with a separator, holds here.
    taken = [name for name, x in given.items() if x is not None and x is not False]
    if taken:
        raise ValueError(
            f"Received read_options with {', '.join(map(repr, taken))}, which are set "
            "here. Choose columns by columns=[...], and rows by steps."
        )
