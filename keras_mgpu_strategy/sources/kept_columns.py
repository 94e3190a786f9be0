"""Columns in memory that are kept: of frames, entries of dicts, indices.

The type of a whole column is known before any of its rows is read. Values of several
kinds in one column are an error; categories are their values. In a pandas column NaN is
a missing value, in an array it is a number.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources import frames
from keras_mgpu_strategy.sources.array_kinds import as_leaf, is_array_like
from keras_mgpu_strategy.sources.arrow_values import value_type, values_of
from keras_mgpu_strategy.sources.casting import is_string
from keras_mgpu_strategy.sources.unsupported import is_of

_is_arrow = is_of("pyarrow", "Array", "ChunkedArray")
_ROWS_AT_A_TIME = 2**16
_REMEDY = "Convert it first, such as to strings, or leave it out of keep."


@dataclasses.dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column in memory: its Arrow type, and what reads rows of it in this type."""

    arrow_type: Any
    num_rows: int
    read: Callable[[int, int], Any]


def column_of(values: Any, where: str) -> KeptColumn:
    """Returns what reads one value a row of a column or array; `where` names it."""
    adapter = next((read for applies, read in _COLUMNS if applies(values)), None)
    if adapter is None:
        raise TypeError(
            f"{where} is {type(values).__name__}, expected an array, a list or a "
            "series with one value a row."
        )
    shape = values.shape if hasattr(values, "shape") else (len(values),)
    if len(shape) != 1:
        raise ValueError(
            f"{where} has shape {tuple(shape)}, expected one value a row, of shape "
            "(rows,). Pass each of its columns under a name of its own."
        )
    with _naming(where):
        arrow_type, read = adapter(values)

    def checked(start: int, stop: int) -> Any:
        with _naming(f"{where}, rows {start} to {stop}"):
            return values_of(read(start, stop), arrow_type)

    return KeptColumn(arrow_type, int(shape[0]), checked)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise ValueError(
            f"{where} cannot be kept: {error}. Expected values of one kind. {_REMEDY}"
        ) from error


def _of_pandas(column: Any) -> tuple[Any, Any]:
    import pyarrow as pa

    if hasattr(column.dtype, "categories"):
        return _of_categories(column)
    if column.dtype == object:
        return _of_objects(column.to_numpy())
    arrow_type = value_type(pa.Array.from_pandas(column.iloc[:0]).type)
    return arrow_type, lambda a, b: pa.Array.from_pandas(column.iloc[a:b])


def _of_categories(column: Any) -> tuple[Any, Any]:
    import pyarrow as pa

    codes = column.cat.codes
    categories = pa.array(column.cat.categories, from_pandas=True)

    def read(start: int, stop: int) -> Any:
        some = codes.iloc[start:stop].to_numpy()
        return categories.take(pa.array(some, mask=some < 0))

    return categories.type, read


def _of_objects(values: Any) -> tuple[Any, Any]:
    import pyarrow as pa

    arrow_type = pa.infer_type(values, from_pandas=True)

    def read(start: int, stop: int) -> Any:
        return pa.array(values[start:stop], arrow_type, from_pandas=True)

    for start in range(0, len(values), _ROWS_AT_A_TIME):
        read(start, start + _ROWS_AT_A_TIME)
    # Arrow would drop the time of day.
    is_date = pa.types.is_date(arrow_type)
    if is_date and any(isinstance(value, datetime.datetime) for value in values):
        raise pa.ArrowInvalid("it holds dates, and dates with a time of day")
    return arrow_type, read


def _of_polars(column: Any) -> tuple[Any, Any]:
    return value_type(column[:0].to_arrow().type), lambda a, b: column[a:b].to_arrow()


def _of_numpy(array: np.ndarray) -> tuple[Any, Any]:
    import pyarrow as pa

    if array.dtype == object:
        return _of_objects(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return pa.array(array[:0]).type, lambda a, b: pa.array(array[a:b])


def _of_arrow(array: Any) -> tuple[Any, Any]:
    return value_type(array.type), lambda a, b: array.slice(a, b - a)


def _of_array_like(array: Any) -> tuple[Any, Any]:
    """Tensors and stored arrays, whose strings are bytes."""
    import pyarrow as pa

    leaf = as_leaf(array, "keep")
    if not is_string(leaf.stored):
        empty = pa.array(np.empty(0, leaf.stored))
        return empty.type, lambda a, b: pa.array(np.asarray(leaf.fetch(a, b)))

    def read(start: int, stop: int) -> Any:
        texts = np.asarray(leaf.fetch(start, stop), object).tolist()
        return pa.array([t.decode() if isinstance(t, bytes) else t for t in texts])

    return pa.string(), read


_COLUMNS: tuple[tuple[Callable[[Any], bool], Callable[[Any], tuple[Any, Any]]], ...] = (
    (frames.is_series, _of_pandas),
    (is_of("polars", "Series"), _of_polars),
    (lambda x: type(x) is np.ndarray, _of_numpy),
    (_is_arrow, _of_arrow),
    (lambda x: isinstance(x, list | tuple), _of_objects),
    (is_array_like, _of_array_like),
)
