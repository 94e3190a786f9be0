"""How the columns of a CSV file are named.

Guarantees:

* Names stay above their own columns: cells after the last name are empty, or an error.
  (pandas would make the first columns an index, and shift all names.)
* The first line is taken as names only if it looks like names, or if the user says so
  with `header` or `names` in `read_options`.
* No two columns have the same name.
"""

import dataclasses
import re
from typing import Any

from keras_mgpu_strategy.formats.csv.lines import FirstLines
from keras_mgpu_strategy.formats.csv.values import Numbers
from keras_mgpu_strategy.formats.paths import shorten

_ROW_NAMES, _REST = "<names of rows>", "<after the last name>"
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*|[.,]\d+)([eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a CSV file.

    Args:
        options: For `pandas.read_csv`.
        keys: What pandas then calls the columns.
        names: What users call them.
        hidden: Columns without a name in the file.
        has_rest: Whether pandas gives an extra column for the cells after the last
            name, which must be empty.
    """

    options: dict[str, Any]
    keys: tuple[Any, ...]
    names: tuple[str, ...]
    hidden: frozenset[str] = frozenset()
    has_rest: bool = False


def find_layout(lines: FirstLines) -> Layout:
    """Finds the names of the columns and where they are.

    Raises:
        ValueError: There are more cells than names, two columns have one name, or the
            first line may be a row.
    """
    lines = _with_blank_lines(lines.separated())
    given = lines.options.get("names")
    if given is not None:
        return _by_user(lines, list(given))
    if lines.header is None:
        keys = tuple(lines.columns)
        return Layout(lines.reading, keys, tuple(map(str, keys)))
    return _by_header(lines)


def _with_blank_lines(lines: FirstLines) -> FirstLines:
    """Reads blank lines as missing values if a row is one cell.

    Those before the line of names are skipped.
    """
    given = lines.options
    if len(lines.columns) > 1 or "skip_blank_lines" in given or "comment" in given:
        return lines
    options = {**lines.options, "skip_blank_lines": False}
    other = dataclasses.replace(lines, options=options)
    try:
        return other if other.columns == lines.columns else lines
    except lines.pandas.errors.EmptyDataError:  # the file begins with blank lines
        return lines


def _by_user(lines: FirstLines, names: list[Any]) -> Layout:
    options, shown = lines.reading, tuple(map(str, names))
    if len(names) >= lines.num_cells or lines.row is None:
        return Layout(options, tuple(names), shown)
    if len(names) + 1 == lines.num_cells and lines.row[len(names)] == "":
        return _with_rest(lines, tuple(names), shown)
    raise ValueError(
        f"{lines.path}: received {len(names)} names in read_options ({shorten(shown)}) "
        f"for rows of {lines.num_cells} cells. Name all columns, and choose some by "
        "columns=[...]."
    )


def _by_header(lines: FirstLines) -> Layout:
    names = [cell.strip() for cell in lines.names]
    _check_names(lines, names)
    pairs = zip(names, lines.columns, strict=True)
    shown = tuple(name or str(column) for name, column in pairs)
    hidden = frozenset(key for name, key in zip(names, shown, strict=True) if not name)
    keys, options = tuple(lines.columns), lines.reading
    if lines.num_cells == len(keys):
        return Layout(options, keys, shown, hidden)
    if lines.row is not None and lines.row[-1] == "":
        return _with_rest(lines, keys, shown, hidden)
    if options.get("index_col") is False or not _may_have_row_names(lines):
        raise ValueError(
            f"{lines.path} names {len(keys)} columns ({shorten(shown)}), but row 0 has "
            "more cells. Quote text that holds separators, or name all columns: "
            "read_options={'header': None, 'skiprows': 1, 'names': [...]}."
        )
    # As R writes tables: the line of names has none for the row names.
    keys, shown = (_ROW_NAMES, *keys), (_ROW_NAMES, *shown)
    options |= {"names": keys, "header": lines.header}
    return Layout(options, keys, shown, hidden | {_ROW_NAMES})


def _may_have_row_names(lines: FirstLines) -> bool:
    """False if a comma may be part of an unquoted text."""
    is_comma = lines.options.get("sep", lines.options.get("delimiter", ",")) == ","
    parse = Numbers.by(lines.options).parse
    cells = (lines.row or [])[1:]
    return not is_comma or all(parse(c) is not None or c in ("", "NA") for c in cells)


def _with_rest(
    lines: FirstLines,
    keys: tuple[Any, ...],
    names: tuple[str, ...],
    hidden: frozenset[str] = frozenset(),
) -> Layout:
    """The layout of rows that end with one separator more than the names."""
    options = {**lines.reading, "names": (*keys, _REST), "header": lines.header}
    return Layout(options, keys, names, hidden, has_rest=True)


def _check_names(lines: FirstLines, names: list[str]) -> None:
    named = [name for name in names if name]
    doubled = sorted({name for name in named if named.count(name) > 1})
    if doubled:
        raise ValueError(
            f"{lines.path} has several columns of the name "
            f"{shorten(map(repr, doubled))}. Name them: read_options={{'header': 0, "
            "'names': [...]}."
        )
    numbers = [name for name in named if _NUMBER.fullmatch(name)]
    if numbers and "header" not in lines.options:
        raise may_be_a_row(lines.path, numbers)


def may_be_a_row(path: Any, cells: list[str]) -> ValueError:
    """Returns the error about a first line that looks like a row."""
    return ValueError(
        f"{path} has {shorten(map(repr, cells))} in its first line, which may be a row "
        "or names of columns. Pass read_options={'header': 0} if these are names; if "
        "it is a row, read_options={'header': None}, which names columns '0', '1' and "
        "so on."
    )
