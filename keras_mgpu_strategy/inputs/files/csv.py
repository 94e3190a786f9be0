"""CSV files, read through pandas a piece at a time.

Guarantees:

* Memory is bounded by a piece of some thousand rows.
* Numbers have the dtype that the model declares, or that of the first rows where it
  declares none, all the way through. Columns for text are never read as numbers.
* A missing value, or one that does not fit, is an error with the file, column and row.
"""

import dataclasses
import functools
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.extras import import_extra
from keras_mgpu_strategy.inputs.files.bad_rows import until_bad
from keras_mgpu_strategy.inputs.files.choosing import in_structure
from keras_mgpu_strategy.inputs.files.columns import (
    NUMBER,
    OTHER,
    TEXT,
    Choice,
    Columns,
    choose_columns,
)
from keras_mgpu_strategy.inputs.files.csv_values import as_values, wanted_dtype
from keras_mgpu_strategy.inputs.files.forming import form_for
from keras_mgpu_strategy.inputs.files.opened import naming
from keras_mgpu_strategy.inputs.files.paths import PathLike, one_file, shorten
from keras_mgpu_strategy.inputs.files.row_stream import TableSource
from keras_mgpu_strategy.inputs.rebatch import Rows
from keras_mgpu_strategy.types import Nest

_SAMPLE_ROWS, _PIECE_VALUES = 1000, 2**19
_OURS = ("chunksize", "iterator", "usecols", "index_col", "nrows")


@dataclasses.dataclass(frozen=True)
class Csv:
    """Rows of a CSV file; only reading to the end tells how many.

    Args:
        path: The file, also a compressed one (`.csv.gz`).
        columns: Names of the columns: for a model with one input, a column or several
            to be stacked; for one with several inputs, one per input in the order of
            the model; or a dict of these by input. None takes columns by the names of
            the model's inputs. For a model with one input and no column of its name,
            it takes all columns of numbers if they are as many as its features; never
            one called `row`.
        read_options: Arguments for `pandas.read_csv`, such as `{"sep": ";"}`.
    """

    path: PathLike
    columns: Columns = None
    read_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def open_rows(self, input_spec: Nest) -> TableSource:
        """Opens the file, see `FileInput`.

        A column gives rows of shape `()`, several stacked ones of shape `(columns,)`.
        Where the model declares another shape for as many values, rows are brought
        into it.

        Raises:
            OSError: There is no such file.
            ValueError: It is damaged, or its columns do not fit the model.
            ImportError: pandas is missing.
        """
        files = one_file(self.path, "CSV")
        _check_options(self.read_options)
        table = _Table(files.files[0], dict(self.read_options))
        sample = table.sample()
        choices = choose_columns(_kinds(sample), self.columns, input_spec, table.path)
        columns = [_ChosenColumns(table.path, choice, sample) for choice in choices]
        spec = in_structure(input_spec, [column.form.spec for column in columns])
        names = [choice.columns for choice in choices]
        options = sorted(map(_stable, self.read_options.items()))
        reader = _Reader(table, columns, num_columns=len(sample.columns))
        return TableSource(
            reader.read, None, spec, files.identity(None, names, options)
        )


class _ChosenColumns:
    """The columns of one model input."""

    def __init__(self, path: Any, choice: Choice, sample: Any) -> None:
        self.names = choice.columns
        spec = choice.input.spec
        self.dtypes = [wanted_dtype(spec, sample[name]) for name in self.names]
        self.form = form_for(choice, [(dtype, ()) for dtype in self.dtypes])
        pairs = zip(self.names, self.dtypes, strict=True)
        self.texts = [name for name, dtype in pairs if dtype.kind == "S"]
        self._path = path

    def read(self, piece: Any, first: int) -> np.ndarray:
        """Returns the input's rows of a piece that begins at row `first`."""
        pairs = zip(self.names, self.dtypes, strict=True)
        cells = [
            as_values(piece[name], dtype, first, f"{self._path}, column {name!r}")
            for name, dtype in pairs
        ]
        return self.form.join(cells, first, self._path)


class _Table:
    """A CSV file and how to read it."""

    def __init__(self, path: Any, options: dict[str, Any]) -> None:
        self.path = path
        self.options = options
        if options.get("engine", "c") == "c" and len(options.get("sep") or ",") == 1:
            # Otherwise pandas may infer several dtypes within one piece, and warn.
            self.options = {"low_memory": False, **options}
        self._pandas = import_extra("pandas", "pandas", "Reading CSV files")

    def sample(self) -> Any:
        """Returns the first rows, all columns."""
        with naming(self.path, "be read as a CSV file"):
            rows = self._pandas.read_csv(self.path, **self.options, nrows=_SAMPLE_ROWS)
        unnamed = [name for name in rows.columns if not isinstance(name, str)]
        if unnamed:
            raise ValueError(
                f"{self.path} has columns without a name ({shorten(unnamed)}). Name "
                "them: read_options={'names': [...], 'header': None}."
            )
        return rows

    def pieces(self, texts: list[str], size: int) -> Iterator[Any]:
        """Yields all rows, `size` at a time; the columns `texts` as strings."""
        dtypes = self.options.get("dtype", {})
        if isinstance(dtypes, Mapping):
            dtypes = {**dict.fromkeys(texts, str), **dtypes}
        # Choosing columns by usecols would let rows with too many cells pass.
        options = {**self.options, "dtype": dtypes, "chunksize": size}
        with (
            naming(self.path, "be read as a CSV file"),
            self._pandas.read_csv(self.path, **options) as pieces,
        ):
            yield from pieces


class _Reader:
    """Reads chosen columns of a CSV file in order."""

    def __init__(
        self, table: _Table, columns: list[_ChosenColumns], num_columns: int
    ) -> None:
        self._table = table
        self._columns = columns
        self._size = max(_PIECE_VALUES // max(num_columns, 1), 1)

    def read(self, start: int) -> Generator[Rows, None, None]:
        """Yields all rows from `start` on."""
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
        return Rows([column.read(some, first) for column in self._columns], num_rows)


def _kinds(sample: Any) -> dict[str, str]:
    kinds = {"i": NUMBER, "u": NUMBER, "f": NUMBER, "b": NUMBER, "O": TEXT}
    return {
        name: kinds.get(np.asarray(sample[name].iloc[:0]).dtype.kind, OTHER)
        for name in sample.columns
    }


def _stable(value: object) -> str:
    """The `repr` without addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _check_options(options: Mapping[str, Any]) -> None:
    taken = [name for name in _OURS if options.get(name) is not None]
    if taken:
        raise ValueError(
            f"Received read_options with {', '.join(map(repr, taken))}, which are set "
            "here. Choose columns by columns=[...], and rows by steps."
        )
