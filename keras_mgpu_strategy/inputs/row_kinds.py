"""What users hold rows of unequal length in, besides files, tables and streams."""

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.parquet.ragged_columns import rows_of_column
from keras_mgpu_strategy.sources import frames
from keras_mgpu_strategy.sources.row_errors import BadRow, failing
from keras_mgpu_strategy.sources.row_lists import RowList, is_scalar
from keras_mgpu_strategy.sources.unsupported import is_of
from keras_mgpu_strategy.types import Ragged

_is_arrow = is_of("pyarrow", "ListArray", "LargeListArray", "FixedSizeListArray")
_is_chunked = is_of("pyarrow", "ChunkedArray")


def rows_of(x: Any, name: str) -> Any:
    """Returns rows that may differ in length as such, other inputs as they are."""
    if isinstance(x, tf.RaggedTensor):
        return _of_tensor(x, name)
    if is_arrow(x):
        return rows_of_column(x, failing(name, 0))
    if _holds_lists(x):
        x = x.to_list()
    if isinstance(x, np.ndarray) and x.dtype.kind == "O" and x.ndim == 1:
        x = x.tolist()
    if not isinstance(x, list | tuple):
        return x
    if x and is_scalar(x[0]) and all(map(is_scalar, x)):
        is_text = isinstance(x[0], str | bytes)
        return np.array(x, object) if is_text else np.asarray(x)
    try:
        return RowList(x)
    except BadRow as bad:
        rows = RowList([[]] * len(x))
        rows.error = bad
        return rows


def is_arrow(x: Any) -> bool:
    """Whether `x` is an Arrow array of lists."""
    return _is_arrow(x) or (_is_chunked(x) and hasattr(x.type, "value_field"))


def columns_of(x: Any, names: Collection[str] | None) -> Any:
    """Returns the columns of a frame that has columns of lists, others as they are.

    They are chosen by the names of the inputs, or else the only one is taken.
    """
    if not (frames.is_frame(x) or (frames.is_polars(x) and hasattr(x, "columns"))):
        return x
    listed = [name for name in x.columns if _holds_lists(x[name])]
    if not listed:
        return x
    names = list(x.columns if names is None else names)
    if len(names) == 1 and len(listed) == 1 and names != listed:
        return x[listed[0]]
    return {name: x[name] for name in x.columns if name in names}


def _holds_lists(x: Any) -> bool:
    if frames.is_series(x):
        first = x.iloc[0] if len(x) else None
        return isinstance(first, list | tuple | np.ndarray)
    return frames.is_polars(x) and hasattr(getattr(x, "dtype", None), "inner")


def _of_tensor(x: Any, name: str) -> Ragged:
    if x.ragged_rank > 1:
        raise ValueError(
            f"{name} is a RaggedTensor of shape {x.shape}, expected one axis that "
            "varies, the first after the batch axis. Pad the others, e.g. by "
            "x.to_tensor()."
        )
    with tf.device("CPU:0"):
        return Ragged(np.asarray(x.values), np.asarray(x.row_splits).astype(np.int64))
