"""The first lines of a CSV file, as text and parsed with the user's options.

Guarantee: a line is cut into cells as pandas cuts it, and nothing is left out.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

_CUTTING = (
    *("sep", "delimiter", "dialect", "engine", "skipinitialspace", "lineterminator"),
    *("quotechar", "quoting", "doublequote", "escapechar", "comment", "skiprows"),
    *("skip_blank_lines", "on_bad_lines", "encoding", "encoding_errors"),
    *("compression", "storage_options", "memory_map"),
)
_SEPARATING = ("sep", "delimiter", "dialect", "engine")
_SEPARATORS = (";", "\t", "|")
_MANY = 256
_EXACT_SINCE = (3, 1)
"""The first pandas version that reads floats exactly and warns when asked to."""


@dataclasses.dataclass(frozen=True)
class FirstLines:
    """The line of names and the first row.

    Args:
        pandas: The package.
        path: The file.
        options: For `pandas.read_csv`.
    """

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
        """The line of names, as in the file."""
        return [str(cell) for cell in self._lines()[self.header or 0][:-1]]

    @functools.cached_property
    def row(self) -> list[Any] | None:
        """The first row, with one more cell than there are names; None without rows."""
        lines = self._lines()[0 if self.header is None else self.header + 1 :]
        return lines[0] if lines else None

    @functools.cached_property
    def num_cells(self) -> int:
        """How many cells the longer of the two has."""
        if self.header is None or self.row is None or not self._is_longer():
            return len(self.columns)
        return len(self.columns) + 1

    @property
    def is_read_by_c(self) -> bool:
        """Whether pandas uses its C parser, which accepts more options."""
        given = [self.options[n] for n in ("sep", "delimiter") if n in self.options]
        simple = all(x and (len(x) == 1 or x == r"\s+") for x in given)
        return simple and self.options.get("engine") in (None, "c")

    @property
    def reading(self) -> dict[str, Any]:
        """The options, and those that make pandas read numbers exactly as written."""
        if not self.is_read_by_c:
            return dict(self.options)
        # Otherwise pandas may infer several dtypes within one piece, and warn.
        ours: dict[str, Any] = {"low_memory": False}
        version = self.pandas.__version__.split(".")
        if tuple(map(int, version[:2])) < _EXACT_SINCE:
            ours["float_precision"] = "round_trip"
        return {**ours, **self.options}

    def separated(self) -> "FirstLines":
        """Finds the separator of a file without a comma, unless the user gives it."""
        if any(name in self.options for name in _SEPARATING) or len(self.columns) > 1:
            return self
        lines = self._lines(_MANY)
        found = [s for s in _SEPARATORS if all(s in ",".join(line) for line in lines)]
        if len(found) != 1:
            return self
        other = dataclasses.replace(self, options={**self.options, "sep": found[0]})
        return other if len(other.columns) > 1 else self

    def _is_longer(self) -> bool:
        last = self.row[-1] if self.row else ""
        if not self.is_read_by_c or last != "":
            return not self.pandas.isna(last)
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
