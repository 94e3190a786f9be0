"""Frames and series of pandas and polars, read a chunk of rows at a time.

polars is never imported, pandas only for its objects. What would become an object array
is refused by name. Bools next to numbers are 0 and 1. Categories are read as their
values. A polars null is an error, never a NaN.
"""

from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.leaf import Fetch
from keras_mgpu_strategy.sources.row_errors import failing
from keras_mgpu_strategy.sources.unsupported import is_of

is_frame = is_of("pandas", "DataFrame")
is_series = is_of("pandas", "Series")
is_polars_frame = is_of("polars", "DataFrame")
is_polars = is_of("polars", "DataFrame", "Series")


def frame_dtype(frame: Any, path: str) -> np.dtype:
    """Returns the one dtype that all columns are read as; strings as kind "U"."""
    # Pairs, since several columns may have one name.
    columns = [
        (f"column {name!r}", column_dtype(column, f"{path}, column {name!r}"))
        for name, column in frame.items()
    ]
    if not columns:
        raise ValueError(f"{path} is a DataFrame without columns, expected one or more")
    strings = [name for name, dtype in columns if dtype.kind == "U"]
    if strings and len(strings) < len(columns):
        raise ValueError(
            f"{path} mixes columns of numbers with columns of strings, which have no "
            f"dtype in common but object: {', '.join(strings)}. Use "
            "x.astype('float32'), or a dict of columns for a model with one input per "
            "column."
        )
    return np.result_type(*(dtype for _, dtype in columns))


def column_dtype(column: Any, path: str) -> np.dtype:
    """Returns the dtype that a column is read as; strings as kind "U"."""
    nullable = getattr(column.dtype, "numpy_dtype", None)
    dtype = np.dtype(nullable or np.asarray(column.iloc[:0]).dtype)
    if (nullable is not None or dtype.kind == "O") and column.isna().any():
        raise ValueError(
            f"{path} ({column.dtype}) has missing values, expected none. Use "
            ".fillna(value), or .astype('float64') to make them NaN."
        )
    if dtype.kind == "O" and _holds_strings(column):
        return np.dtype("U")
    if dtype.kind not in "biufc":
        raise ValueError(
            f"{path} has dtype={column.dtype} (read as {dtype}), expected numbers, "
            "bools or only strings. Use .astype(str), .astype('float32') or drop it. "
            "For lists of unequal length, pass pad=mgpu.Pad()."
        )
    return dtype


def polars_rows(x: Any, path: str) -> Fetch:
    """Returns what reads rows of a polars Series, or of all columns of a DataFrame."""

    def read(start: int, stop: int) -> np.ndarray:
        rows = x[start:stop]
        for column in rows.get_columns() if hasattr(rows, "get_columns") else [rows]:
            if column.null_count():
                failing(f"{path}, column {column.name!r}", start)(
                    int(column.is_null().arg_max()),
                    "holds a null, expected a value. Fill it in first, e.g. "
                    "x.fill_null(0).",
                )
        return rows.to_numpy()

    return read


def _holds_strings(column: Any) -> bool:
    import pandas as pd

    values = getattr(column.dtype, "categories", column)
    return pd.api.types.infer_dtype(values, skipna=False) == "string"
