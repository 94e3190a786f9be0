"""The values of a CSV column, held to one dtype all the way through.

Guarantees:

* What pandas inferred for one piece of a file never decides: the dtype is settled
  before, and a value that does not fit it is an error that names the row.
"""

from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs.files.bad_rows import BadRow

_TEXT = np.dtype("S")
_NAMES = {"f": "a number", "i": "a whole number", "b": "True or False", "S": "text"}


def wanted_dtype(spec: tf.TensorSpec | None, sample: Any) -> np.dtype:
    """Returns the dtype to read a column as.

    Args:
        spec: What the model declares; None where it declares nothing.
        sample: The first rows of the column, a pandas Series.

    Returns:
        float64, int64, bool or kind "S".
    """
    kind = _sample_kind(sample) if spec is None else _spec_kind(spec.dtype)
    return {"f": np.dtype(np.float64), "i": np.dtype(np.int64)}.get(
        kind, np.dtype(bool) if kind == "b" else _TEXT
    )


def as_values(column: Any, dtype: np.dtype, first: int, where: str) -> np.ndarray:
    """Returns the values of some rows of a column.

    Args:
        column: A pandas Series.
        dtype: What `wanted_dtype` returned.
        first: The index of its first row in the file.
        where: Names file and column in messages.

    Returns:
        An array of shape `(rows,)`; text as objects.

    Raises:
        BadRow: A value is missing or does not fit.
    """

    def fail(bad: np.ndarray, what: str) -> NoReturn:
        row = int(bad.argmax())
        value = what.format(column.iloc[row])
        raise BadRow(f"{where}, row {first + row} {value}", row)

    missing = column.isna().to_numpy(dtype=bool)
    if missing.any():
        fail(
            missing,
            "has no value, expected one. Fill it in; read_options={{'keep_default_na': "
            "False}} reads words such as NA as they are.",
        )
    if dtype == _TEXT:
        return column.astype(str).to_numpy(dtype=object)
    values, bad = _CONVERSIONS[dtype.kind](column)
    if bad.any():
        fail(bad, f"holds {{!r}}, expected {_NAMES[dtype.kind]}.")
    return values


def _floats(column: Any) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd

    numbers: Any = pd.to_numeric(column, errors="coerce")
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return values, np.isnan(values)


def _integers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    if np.asarray(column.iloc[:0]).dtype.kind in "ib":
        values = column.to_numpy(dtype=np.int64)
        return values, np.zeros(len(values), bool)
    floats, _ = _floats(column)
    with np.errstate(invalid="ignore"):
        values = floats.astype(np.int64)
    # Beyond 2**53 a float64 does not tell neighbouring integers apart.
    return values, ~((values == floats) & (np.abs(floats) <= 2.0**53))


def _bools(column: Any) -> tuple[np.ndarray, np.ndarray]:
    values = column.to_numpy(dtype=object)
    bad = np.array([value not in (True, False) for value in values], dtype=bool)
    return np.equal(values, True).astype(bool), bad


_CONVERSIONS = {"f": _floats, "i": _integers, "b": _bools}


def _sample_kind(sample: Any) -> str:
    kind = np.asarray(sample.iloc[:0]).dtype.kind
    return {"u": "i"}.get(kind, kind)


def _spec_kind(dtype: tf.DType) -> str:
    if dtype == tf.string:
        return "S"
    return "b" if dtype.is_bool else "i" if dtype.is_integer else "f"
