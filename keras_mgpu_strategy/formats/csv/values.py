"""The values of a CSV column, with one dtype throughout the file.

The dtype is fixed beforehand; a value that does not fit is an error with its row.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import EMPTY, NUMBER, TEXT
from keras_mgpu_strategy.sources.row_errors import Fail
from keras_mgpu_strategy.sources.safe_casts import as_integers

_TEXT = np.dtype("S")
_DTYPES = {"S": _TEXT, "b": np.dtype(bool)}
_BOOLS = {"true": True, "false": False}
_COMMA = re.compile(r"[-+]?[\d.,]*,\d+[\d.]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Numbers:
    """How numbers are written: before a fraction, and between groups of digits."""

    decimal: str = "."
    thousands: str | None = None

    @classmethod
    def by(cls, options: Mapping[str, Any]) -> "Numbers":
        """Returns what `read_options` ask for."""
        return cls(options.get("decimal", "."), options.get("thousands"))

    def parse(self, cell: Any) -> Any:
        """Returns a number or a bool; None if a cell is neither."""
        if not isinstance(cell, str):
            return cell
        text = cell.strip().replace(self.thousands or "\0", "")
        if text.lower() in _BOOLS:
            return _BOOLS[text.lower()]
        # Python also reads 1_000. A point is not a decimal comma, nor the reverse.
        if "_" in text or (self.decimal != "." and "." in text):
            return None
        for read in (int, float):
            with contextlib.suppress(ValueError):
                return read(text.replace(self.decimal, "."))
        return None


def kind_of(column: Any, numbers: Numbers) -> str:
    """Returns the kind of a column by its first rows, a pandas Series."""
    code = _code_of(column)
    present = column[column.notna()]
    if not len(present) and code in "Of":
        return EMPTY
    if code in "iufb":
        return NUMBER
    if code != "O":
        return str(column.dtype)
    return TEXT if any(numbers.parse(cell) is None for cell in present) else NUMBER


def wanted_dtype(spec: tf.TensorSpec | None, kind: str, sample: Any) -> np.dtype:
    """Returns what to read a column as: float64, int64, uint64, bool, or "S"."""
    code = _code_of(sample)
    if spec is not None and spec.dtype == tf.string:
        code = "S"
    elif spec is not None:
        code = "b" if spec.dtype.is_bool else "i" if spec.dtype.is_integer else "f"
    elif code == "O":  # numbers that pandas left as text are floats
        code = "f" if kind == NUMBER else "S"
    return _DTYPES.get(code) or np.dtype(f"{code}8")


def as_values(
    column: Any, dtype: np.dtype, numbers: Numbers, as_nan: bool, fail: Fail
) -> np.ndarray:
    """Returns `(rows,)` values: text as objects, integers and bools of any dtype."""
    missing = column.isna().to_numpy(dtype=bool)
    if missing.any() and not as_nan:
        nan = ", or pass missing_as_nan=True" if dtype.kind == "f" else ""
        fail(
            int(missing.argmax()),
            f"has no value, expected one. Fill it in{nan}; "
            "read_options={'keep_default_na': False} reads words such as NA as they "
            "are.",
        )
    if dtype == _TEXT:
        return column.astype(str).to_numpy(dtype=object)
    as_floats = as_nan or dtype.kind == "f"
    if _code_of(column) in "iufb":
        asked = {"dtype": np.float64, "na_value": np.nan} if as_floats else {}
        return column.to_numpy(**asked)
    cells = column.to_numpy(dtype=object, na_value=math.nan).tolist()
    values = list(map(numbers.parse, cells))
    if None in values:
        row = values.index(None)
        hint = ""
        if _COMMA.fullmatch(cells[row].strip()):
            options = "{'decimal': ','} or {'thousands': ','}"
            hint = f" read_options={options} says what a comma is."
        fail(row, f"holds {cells[row]!r}, expected a number.{hint}")
    return np.array(values, np.float64) if as_floats else as_integers(values, 1, fail)


def _code_of(column: Any) -> str:
    """The kind of NumPy dtype that a pandas Series, also of its own dtypes, becomes."""
    return np.asarray(column.iloc[:0]).dtype.kind
