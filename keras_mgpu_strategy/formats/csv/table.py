"""A CSV file as pandas reads it; a row with more cells than names is an error."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from keras_mgpu_strategy.formats.columns import TEXT, Choice
from keras_mgpu_strategy.formats.csv.layout import find_layout, may_be_a_row
from keras_mgpu_strategy.formats.csv.values import Numbers, kind_of
from keras_mgpu_strategy.formats.file_source import naming
from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.system.extras import import_extra

_SAMPLE_ROWS = 1000
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "zstd",
}


class CsvTable:
    """A CSV file, how to read it, and its first rows."""

    def __init__(self, path: Any, options: Mapping[str, Any]) -> None:
        self.path = path
        self.numbers = Numbers.by(options)
        pandas: Any = import_extra("pandas", "pandas", "Reading CSV files")
        with _reading(path):
            options = {"compression": _compression(path), **options}
            self.layout = find_layout(pandas, path, options)
            self._read = functools.partial(pandas.read_csv, path)
            rows = self._read(**self.layout.options, nrows=_SAMPLE_ROWS)
        self.sample = self._named(rows)
        self.kinds = {
            name: kind_of(self.sample[name], self.numbers) for name in self.layout.names
        }
        self._is_sure = "header" in options or "names" in options

    def check_names(self, choices: list[Choice]) -> None:
        """Refuses an unasked name that is also text in its column: it may be a row."""
        for choice in choices:
            for name in set(choice.columns) - {choice.input.name}:
                is_text = not self._is_sure and self.kinds[name] == TEXT
                if is_text and (self.sample[name] == name).any():
                    raise may_be_a_row(self.path, [name])

    def pieces(self, texts: list[str], size: int) -> Iterator[Any]:
        """Yields all rows, `size` at a time; the columns `texts` as strings."""
        # With usecols, rows with too many cells would go unnoticed.
        options = {**self._options(texts), "chunksize": size}
        with _reading(self.path), self._read(**options) as pieces:
            yield from map(self._named, pieces)

    def first_rows(self, texts: list[str]) -> Any:
        """Returns the rows of the sample; the columns `texts` as strings."""
        with _reading(self.path):
            return self._named(self._read(**self._options(texts), nrows=_SAMPLE_ROWS))

    def is_typed(self, name: str) -> bool:
        """Whether the user's options say what the values of a column are."""
        options = self.layout.options
        dtypes, dates = options.get("dtype") or {}, options.get("parse_dates") or ()
        if not isinstance(dtypes, Mapping):
            return True
        key = self._keys[name]
        is_date = not isinstance(dates, bool) and key in dates
        return key in dtypes or key in (options.get("converters") or {}) or is_date

    def check_rest(self, piece: Any, first: int) -> None:
        """Raises BadRow for a row with more cells than there are names."""
        if not self.layout.has_rest:
            return
        rest = piece.iloc[:, -1]
        bad = (rest.notna() & (rest.astype(str) != "")).to_numpy(dtype=bool)
        if bad.any():
            row = int(bad.argmax())
            cell, last = str(rest.iloc[row]), self.layout.names[-1]
            raise BadRow(
                f"{self.path}, row {first + row} has {cell!r} after the last column, "
                f"{last!r}, expected nothing. Repair the row, or name all columns: "
                "read_options={'header': None, 'skiprows': 1, 'names': [...]}.",
                row,
            )

    @property
    def _keys(self) -> dict[str, Any]:
        return dict(zip(self.layout.names, self.layout.keys, strict=True))

    def _options(self, texts: list[str]) -> dict[str, Any]:
        options, keys = self.layout.options, self._keys
        dtypes = options.get("dtype", {})
        if isinstance(dtypes, Mapping):
            taken = options.get("converters") or {}
            ours = {keys[name]: str for name in texts if keys[name] not in taken}
            dtypes = {**ours, **dtypes}
        return {**options, "dtype": dtypes}

    def _named(self, rows: Any) -> Any:
        rows.columns = [*self.layout.names, *([""] if self.layout.has_rest else [])]
        return rows


def _compression(path: Any) -> str:
    """How a file is compressed, whatever its name."""
    with open(path, "rb") as file:
        head = file.read(max(map(len, _COMPRESSIONS)))
    found = (name for magic, name in _COMPRESSIONS.items() if head.startswith(magic))
    return next(found, "infer")


@contextlib.contextmanager
def _reading(path: Any) -> Iterator[None]:
    try:
        with naming(path, "be read as a CSV file"):
            yield
    except ValueError as error:
        if type(error.__cause__).__name__ == "ParserError":  # of pandas
            raise ValueError(
                f"{str(error).rstrip()}. Repair the line: quote text that holds "
                "separators or line breaks, and close quotes."
            ) from error
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        raise ValueError(
            f"{str(error).rstrip().rstrip('.')}. If it is not UTF-8, pass "
            "read_options={'encoding': ...}, such as 'latin-1' or 'utf-16'."
        ) from error
