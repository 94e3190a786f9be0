"""Batches -> rows that fit the file: a `HostBatch` with a list of arrays, by column.

A batch that does not fit is refused whole, with its first row and what differs. No
value is changed: types that files lack are widened. Strings are `bytes` objects.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.types import HostBatch, Ragged, RowMarks

# Types that files do not support, and the narrowest that holds all their values.
_STORED_AS = {
    "bfloat16": np.float32,
    "float8_e4m3fn": np.float32,
    "float8_e4m3b11fnuz": np.float32,
    "float8_e5m2": np.float32,
}


def stored_columns(layout: Layout) -> tuple[Column, ...]:
    """The columns with the dtypes that files store: float32 for bfloat16."""
    return tuple(
        dataclasses.replace(
            column, dtype=np.dtype(_STORED_AS.get(column.dtype.name, column.dtype))
        )
        for column in layout.columns
    )


def as_rows(leaf: Any) -> np.ndarray | Ragged:
    """An output as arrays of NumPy alone."""
    return leaf if isinstance(leaf, Ragged) else np.asarray(leaf)


def rows_between(rows: HostBatch, start: int, stop: int) -> HostBatch:
    """The rows from `start` up to `stop`, as views."""
    first, end = start - rows.start, stop - rows.start
    outputs = [array[first:end] for array in rows.outputs]
    return HostBatch(start, outputs, rows.marks.between(first, end))


def check_next(batch: HostBatch, next_row: int) -> None:
    """Checks that a batch begins at the row that is the next to store."""
    if batch.start != next_row:
        raise ValueError(
            f"A batch begins at row {batch.start}, but row {next_row} is the next to "
            "store. Write batches in order, each once."
        )


def checked_rows(layout: Layout, next_row: int, batch: HostBatch) -> HostBatch:
    """Returns the rows of a batch, which must fit and begin at `next_row`."""
    leaves = list(map(as_rows, tf.nest.flatten(batch.outputs)))
    if any(not leaf.shape for leaf in leaves):
        raise ValueError("A batch has an output without rows, a single value.")
    if len(leaves) != len(layout.columns):
        names = ", ".join(column.name for column in layout.columns)
        raise ValueError(
            f"A batch has {len(leaves)} outputs, but the file was begun with "
            f"{len(layout.columns)}: {names}. A model must give the same outputs for "
            "all rows."
        )
    check_next(batch, next_row)
    start, stop = batch.start, batch.start + len(leaves[0])
    if layout.stop_row is not None and stop > layout.stop_row:
        raise ValueError(
            f"A batch of rows {start} to {stop} goes beyond the {layout.stop_row} rows "
            "that the file was begun for."
        )
    for column, leaf in zip(layout.columns, leaves, strict=True):
        _check_fits(column, start, leaf, stop - start)
    pairs = zip(leaves, stored_columns(layout), strict=True)
    marks = _checked_marks(layout, start, stop, batch.marks)
    return HostBatch(start, [_stored(*pair) for pair in pairs], marks)


def _check_fits(
    column: Column, start: int, leaf: np.ndarray | Ragged, num_rows: int
) -> None:
    if leaf.shape[1:] != column.row_shape:
        raise ValueError(
            f"Output {column.name!r} has rows of shape {leaf.shape[1:]} from row "
            f"{start} on, but {column.row_shape} before. Rows of different shapes "
            "cannot be stored in one array; pad them to one shape in the model, or "
            "take them from `predict_iter`."
        )
    if len(leaf) != num_rows:
        raise ValueError(
            f"Output {column.name!r} has {len(leaf)} rows from row {start} on, but "
            f"another output has {num_rows}."
        )
    is_text = column.is_text and leaf.dtype.kind in "OSU"
    if not is_text and leaf.dtype.newbyteorder("=") != column.dtype:
        raise ValueError(
            f"Output {column.name!r} is {leaf.dtype} from row {start} on, but "
            f"{column.dtype} before. Cast it to one dtype in the model."
        )


def _stored(leaf: Any, column: Column) -> Any:
    if isinstance(leaf, Ragged):
        return leaf.mapped(lambda values: _stored(values, column))
    if leaf.dtype.kind == "U":
        leaf = np.char.encode(leaf, "utf-8")
    return leaf.astype(column.dtype, copy=False)


def _checked_marks(layout: Layout, start: int, stop: int, marks: RowMarks) -> RowMarks:
    names = None
    missing = None if marks.missing is None else np.asarray(marks.missing, bool)
    if layout.has_names:
        # Bytes of names that are not text are escaped.
        names = [
            str(name).encode("utf-8", "backslashreplace").decode("utf-8")
            for name in marks.names or ()
        ]
        if len(names) != stop - start:
            raise ValueError(
                f"Rows {start} to {stop} came with {len(names)} names. Expected one "
                "for each row."
            )
    if missing is not None and missing.shape != (stop - start,):
        raise ValueError(
            f"Rows {start} to {stop} came with marks of shape {missing.shape}. "
            f"Expected ({stop - start},)."
        )
    if missing is not None and not missing.any():
        missing = None
    return RowMarks(names, missing, _checked_kept(layout, start, stop, marks.kept))


def _checked_kept(layout: Layout, start: int, stop: int, kept: Any) -> Any:
    if layout.kept is None:
        return None
    found = None if kept is None else (kept.num_rows, kept.schema)
    if found != (stop - start, layout.kept):
        raise ValueError(
            f"Rows {start} to {stop} came with other columns than the file was begun "
            f"for: {found}. Expected {stop - start} rows of {layout.kept}."
        )
    return kept
