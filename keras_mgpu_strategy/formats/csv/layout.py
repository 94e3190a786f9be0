"""How the columns of a CSV file are named, by its first lines, cut as pandas does.

Names stay above their own columns: cells after the last name are empty, or an error.
The first line is names only if it looks so, or by `header` or `names`. No two are the
same.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from keras_mgpu_strategy.formats.csv.values import Numbers
from keras_mgpu_strategy.formats.paths import shorten

_ROW_NAMES, _REST = "<names of rows>", "<after the last name>"
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*|[.,]\d+)([eE][-+]?\d+)?")
_CUTTING = (
    *("sep", "delimiter", "dialect", "engine", "skipinitialspace", "lineterminator"),
    *("quotechar", "quoting", "doublequote", "escapechar", "comment", "skiprows"),
    *("skip_blank_lines", "on_bad_lines", "encoding", "encoding_errors"),
    *("compression", "storage_options", "memory_map"),
)
_SEPARATING, _SEPARATORS = ("sep", "delimiter", "dialect", "engine"), (";", "\t", "|")
_MANY = 256
_EXACT_SINCE = (3, 1)
"""The first pandas version that reads floats exactly and warns when asked to."""


@dataclasses.dataclass(frozen=True, slots=True)
class CsvLayout:
    """The columns by pandas' names, `keys`, given `options`; `hidden` ones lack one."""

    options: dict[str, Any]
    keys: tuple[Any, ...]
    names: tuple[str, ...]
    hidden: frozenset[str] = frozenset()
    has_rest: bool = False  # a column of cells after the last name, all empty


def find_layout(pandas: Any, path: Any, options: Mapping[str, Any]) -> CsvLayout:
    """Finds the columns' names and places; refuses a first line that may be a row."""
    given = _FirstLines(pandas, path, options).by_a_named_engine()
    lines = given.separated().with_blank_lines()
    names = lines.options.get("names")
    if names is not None:
        return _by_user(lines, list(names))
    if lines.header is None:
        keys = tuple(lines.columns)
        return CsvLayout(lines.reading, keys, tuple(map(str, keys)))
    return _by_header(lines)


def may_be_a_row(path: Any, cells: list[str]) -> ValueError:
    """Returns the error about a first line that looks like a row."""
    return ValueError(
        f"{path} has {shorten(map(repr, cells))} in its first line, which may be a row "
        "or names of columns. Pass read_options={'header': 0} if these are names; if "
        "it is a row, read_options={'header': None}, which names columns '0', '1' and "
        "so on."
    )


@dataclasses.dataclass(frozen=True)
class _FirstLines:
    """The line of names and the first row, as text."""

    pandas: Any
    path: Any
    options: Mapping[str, Any]

    @property
    def header(self) -> int | None:
        """Which line holds the names, from 0; None if none does."""
        header = self.options.get("header", "infer")
        if header == "infer":
            return 0 if self.options.get("names") is None else None
        if header is None or (isinstance(header, int) and not isinstance(header, bool)):
            return header
        raise ValueError(
            f"{self.path}: received header={header!r}, expected the index of the "
            "one line that names the columns, or None."
        )

    @functools.cached_property
    def columns(self) -> list[Any]:
        """What pandas calls the cells of the line of names, or else of row 0."""
        return list(self._read(header=self.header, nrows=0).columns)

    @functools.cached_property
    def names(self) -> list[str]:
        return [str(cell).strip() for cell in self._lines()[self.header or 0][:-1]]

    @functools.cached_property
    def row(self) -> list[Any] | None:
        """The first row, with one more cell than there are names; None without rows."""
        lines = self._lines()[0 if self.header is None else self.header + 1 :]
        return lines[0] if lines else None

    @functools.cached_property
    def num_cells(self) -> int:
        is_longer = self.header is not None and self.row and self._is_longer(self.row)
        return len(self.columns) + bool(is_longer)

    @property
    def reading(self) -> dict[str, Any]:
        """The options, and those that make pandas read numbers exactly as written."""
        ours: dict[str, Any] = {}
        if self._is_read_by_c:
            # Otherwise pandas may infer several dtypes within one piece, and warn.
            ours["low_memory"] = False
            version = self.pandas.__version__.split(".")
            if tuple(map(int, version[:2])) < _EXACT_SINCE:
                ours["float_precision"] = "round_trip"
        return {**ours, **self.options}

    def by_a_named_engine(self) -> "_FirstLines":
        """Names pandas' slow engine where it is needed, as pandas would warn if not."""
        if self._is_read_by_c or self.options.get("engine") is not None:
            return self
        return dataclasses.replace(self, options={**self.options, "engine": "python"})

    def separated(self) -> "_FirstLines":
        """Finds the separator of a file without a comma, unless the user gives it."""
        if any(name in self.options for name in _SEPARATING) or len(self.columns) > 1:
            return self
        lines = self._lines(_MANY)
        found = [s for s in _SEPARATORS if all(s in ",".join(line) for line in lines)]
        if len(found) != 1:
            return self
        other = dataclasses.replace(self, options={**self.options, "sep": found[0]})
        return other if len(other.columns) > 1 else self

    def with_blank_lines(self) -> "_FirstLines":
        """Reads blank lines below the names as missing values if a row is one cell."""
        is_given = {"skip_blank_lines", "comment"} & self.options.keys()
        if len(self.columns) > 1 or is_given:
            return self
        options = {**self.options, "skip_blank_lines": False}
        other = dataclasses.replace(self, options=options)
        try:
            return other if other.columns == self.columns else self
        except self.pandas.errors.EmptyDataError:  # the file begins with blank lines
            return self

    @property
    def _is_read_by_c(self) -> bool:
        given = [self.options[n] for n in ("sep", "delimiter") if n in self.options]
        simple = all(x and (len(x) == 1 or x == r"\s+") for x in given)
        return simple and self.options.get("engine") in (None, "c")

    def _is_longer(self, row: list[Any]) -> bool:
        if not self._is_read_by_c or row[-1] != "":
            return not self.pandas.isna(row[-1])
        # The C parser reads a cell that is not there as an empty one.
        names = range(len(self.columns) + 1)
        try:
            self._read(header=self.header, names=names, nrows=1)
        except self.pandas.errors.ParserError:
            return False
        return True

    def _lines(self, num_cells: int | None = None) -> list[list[Any]]:
        names = range(len(self.columns) + 1 if num_cells is None else num_cells)
        nrows = 1 if self.header is None else self.header + 2
        lines = self._read(header=None, names=names, nrows=nrows, index_col=False)
        return lines.to_numpy(object).tolist()

    def _read(self, **options: Any) -> Any:
        cutting = {name: x for name, x in self.options.items() if name in _CUTTING}
        options = {**cutting, "dtype": str, "na_filter": False, **options}
        return self.pandas.read_csv(self.path, **options)


def _by_user(lines: _FirstLines, names: list[Any]) -> CsvLayout:
    layout = CsvLayout(lines.reading, tuple(names), tuple(map(str, names)))
    if len(names) >= lines.num_cells or lines.row is None:
        return layout
    if len(names) + 1 == lines.num_cells and lines.row[len(names)] == "":
        return _with_rest(lines, layout)
    raise ValueError(
        f"{lines.path}: received {len(names)} names in read_options "
        f"({shorten(layout.names)}) for rows of {lines.num_cells} cells. Name all "
        "columns, and choose some by columns=[...]."
    )


def _by_header(lines: _FirstLines) -> CsvLayout:
    _check_names(lines)
    pairs = list(zip(lines.names, lines.columns, strict=True))
    keys, shown = tuple(lines.columns), tuple(name or str(key) for name, key in pairs)
    hidden = frozenset(str(key) for name, key in pairs if not name)
    layout = CsvLayout(lines.reading, keys, shown, hidden)
    if lines.num_cells == len(keys):
        return layout
    if lines.row is not None and lines.row[-1] == "":
        return _with_rest(lines, layout)
    if lines.options.get("index_col") is False or not _may_have_row_names(lines):
        raise ValueError(
            f"{lines.path} names {len(keys)} columns ({shorten(shown)}), but row 0 has "
            "more cells. Quote text that holds separators, or name all columns: "
            "read_options={'header': None, 'skiprows': 1, 'names': [...]}."
        )
    # As R writes tables: the line of names has none for the row names.
    keys, shown = (_ROW_NAMES, *keys), (_ROW_NAMES, *shown)
    options = {**layout.options, "names": keys, "header": lines.header}
    return CsvLayout(options, keys, shown, hidden | {_ROW_NAMES})


def _may_have_row_names(lines: _FirstLines) -> bool:
    """False if a comma may be part of an unquoted text."""
    is_comma = lines.options.get("sep", lines.options.get("delimiter", ",")) == ","
    parse = Numbers.by(lines.options).parse
    cells = (lines.row or [])[1:]
    return not is_comma or all(parse(c) is not None or c in ("", "NA") for c in cells)


def _with_rest(lines: _FirstLines, layout: CsvLayout) -> CsvLayout:
    """The layout of rows that end with one separator more than the names."""
    names = (*layout.keys, _REST)
    options = {**layout.options, "names": names, "header": lines.header}
    return dataclasses.replace(layout, options=options, has_rest=True)


def _check_names(lines: _FirstLines) -> None:
    named = [name for name in lines.names if name]
    doubled = sorted({name for name in named if named.count(name) > 1})
    if doubled:
        raise ValueError(
            f"{lines.path} has several columns named "
            f"{shorten(map(repr, doubled))}. Name them: read_options={{'header': 0, "
            "'names': [...]}."
        )
    numbers = [name for name in named if _NUMBER.fullmatch(name)]
    if numbers and "header" not in lines.options:
        raise may_be_a_row(lines.path, numbers)
