"""CSV files, read through pandas a piece of a few thousand rows at a time.

One dtype throughout: the model's, or that of the first rows. Text is never read as
numbers. What is missing or does not fit is an error with file, column and row.
"""

import dataclasses
import functools
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.choosing import in_structure, present_inputs
from keras_mgpu_strategy.formats.columns import (
    Choice,
    Columns,
    choose_columns,
    form_for,
)
from keras_mgpu_strategy.formats.csv.kept import KeptCsvColumns
from keras_mgpu_strategy.formats.csv.table import CsvTable
from keras_mgpu_strategy.formats.csv.values import as_values, wanted_dtype
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.row_errors import Fail, until_bad
from keras_mgpu_strategy.sources.tables import TableSource
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest, RowMarks

_PIECE_VALUES = 2**19
_OURS = ("chunksize", "iterator", "usecols", "index_col", "nrows")


@short_traceback
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

    def open_rows(self, input_spec: Nest, keep: Sequence[str] = ()) -> TableSource:
        """Opens the file, see `FileInput`; columns of `keep` travel beside the rows.

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
        kinds, hidden = table.kinds, table.layout.hidden | set(keep)
        kept = KeptCsvColumns(table, keep)
        input_spec = present_inputs(input_spec, kinds, self.columns)
        choices = choose_columns(kinds, self.columns, input_spec, table.path, hidden)
        if self.columns is None:
            table.check_names(choices)
        columns = [_CsvColumns(table, c, self.missing_as_nan) for c in choices]
        spec = in_structure(input_spec, [column.form.spec for column in columns])
        names, how = [choice.columns for choice in choices], dict(self.read_options)
        identity = files.identity(None, names, self.missing_as_nan, how=how)
        read = functools.partial(_rows, table, columns, kept)
        return TableSource(read, None, spec, identity, kept.schema)


class _CsvColumns:
    def __init__(self, table: CsvTable, choice: Choice, missing_as_nan: bool) -> None:
        self._table = table
        self.dtypes = {
            name: wanted_dtype(choice.input.spec, table.kinds[name], table.sample[name])
            for name in choice.columns
        }
        cells = [(self.dtypes[name], ()) for name in choice.columns]
        self.form = form_for(choice, cells, missing_as_nan)
        self._as_nan = missing_as_nan and self.form.cast.dtype.is_floating

    def read(self, piece: Any, first: int) -> np.ndarray:
        def values(name: str, fail: Fail) -> np.ndarray:
            how = self.dtypes[name], self._table.numbers, self._as_nan
            return as_values(piece[name], *how, fail)

        return self.form.join(values, first, self._table.path)


def _rows(
    table: CsvTable, columns: list[_CsvColumns], kept: KeptCsvColumns, start: int
) -> Generator[Rows, None, None]:
    def decode(piece: Any, first: int, num_rows: int) -> Rows:
        some = piece.iloc[:num_rows]
        table.check_rest(some, first)
        flat = [column.read(some, first) for column in columns]
        return Rows(flat, num_rows, marks=RowMarks(kept=kept.read(some, first)))

    dtypes = [pair for column in columns for pair in column.dtypes.items()]
    texts = [name for name, dtype in dtypes if dtype.kind == "S"] + kept.texts
    size = max(_PIECE_VALUES // max(len(table.layout.names), 1), 1)
    first = 0
    for piece in table.pieces(texts, size):
        skipped = min(max(start - first, 0), len(piece))
        rest = functools.partial(decode, piece.iloc[skipped:], first + skipped)
        yield from until_bad(len(piece) - skipped, rest)
        first += len(piece)
    if start > first:
        raise ValueError(
            f"Received start={start}, but {table.path} has only {first} rows."
        )


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
