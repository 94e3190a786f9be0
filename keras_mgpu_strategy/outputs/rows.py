"""Batches -> rows that fit the file, checked and of the types that files support.

Guarantees:

* A batch that does not fit is refused as a whole; the error has its first row and what
  differs.
* No value is changed: types that files do not support are widened to one that holds all
  their values. Strings are objects of type `bytes`.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.types import HostBatch, RowMarks

# Types that files do not support, and the narrowest that holds all their values.
_STORED_AS = {
    "bfloat16": np.float32,
    "float8_e4m3fn": np.float32,
    "float8_e4m3b11fnuz": np.float32,
    "float8_e5m2": np.float32,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows that were checked, as files store them.

    Args:
        start: Index of the first row.
        stop: Index one past the last one.
        arrays: One per column, of the dtypes of `stored_columns`.
        names: One per row, or None if the layout has none.
        missing: Boolean array over the rows; None if none is missing.
    """

    start: int
    stop: int
    arrays: list[np.ndarray]
    names: list[str] | None
    missing: np.ndarray | None

    def between(self, start: int, stop: int) -> "Rows":
        """The rows from `start` up to `stop`."""
        part = slice(start - self.start, stop - self.start)
        return Rows(
            start,
            stop,
            [array[part] for array in self.arrays],
            None if self.names is None else self.names[part],
            None if self.missing is None else self.missing[part],
        )


def stored_columns(layout: Layout) -> tuple[Column, ...]:
    """The columns with the dtypes that files store: float32 for bfloat16."""
    return tuple(
        dataclasses.replace(
            column, dtype=np.dtype(_STORED_AS.get(column.dtype.name, column.dtype))
        )
        for column in layout.columns
    )


def checked_rows(layout: Layout, next_row: int, batch: HostBatch) -> Rows:
    """Returns the rows of a batch.

    Args:
        layout: What the file holds.
        next_row: Index of the row that the batch must begin at.
        batch: The results.

    Raises:
        ValueError: The batch does not fit.
    """
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(batch.outputs)]
    _check_count(layout, leaves)
    stop = batch.start + len(leaves[0])
    _check_place(layout, next_row, batch.start, stop)
    pairs = zip(layout.columns, stored_columns(layout), leaves, strict=True)
    arrays = [
        _stored(_fitting(column, batch.start, leaf, len(leaves[0])), stored)
        for column, stored, leaf in pairs
    ]
    names, missing = _checked_marks(layout, batch.start, stop, batch.marks)
    return Rows(batch.start, stop, arrays, names, missing)


def _check_count(layout: Layout, leaves: list[np.ndarray]) -> None:
    if any(leaf.ndim == 0 for leaf in leaves):
        raise ValueError("A batch has an output without rows, a single value.")
    if len(leaves) != len(layout.columns):
        names = ", ".join(column.name for column in layout.columns)
        raise ValueError(
            f"A batch has {len(leaves)} outputs, but the file was begun with "
            f"{len(layout.columns)}: {names}. A model must give the same outputs for "
            "all rows."
        )


def _check_place(layout: Layout, next_row: int, start: int, stop: int) -> None:
    if start != next_row:
        raise ValueError(
            f"A batch begins at row {start}, but row {next_row} is the next to store. "
            "Write batches in order, each once."
        )
    if layout.stop_row is not None and stop > layout.stop_row:
        raise ValueError(
            f"A batch of rows {start} to {stop} goes beyond the {layout.stop_row} rows "
            "that the file was begun for."
        )


def _fitting(column: Column, start: int, leaf: np.ndarray, num_rows: int) -> np.ndarray:
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
    if not _is_same_dtype(leaf.dtype, column.dtype):
        raise ValueError(
            f"Output {column.name!r} is {leaf.dtype} from row {start} on, but "
            f"{column.dtype} before. Cast it to one dtype in the model."
        )
    return leaf


def _is_same_dtype(given: np.dtype, expected: np.dtype) -> bool:
    """Whether they are equal except for byte order; strings may be of any kind."""
    if expected.kind == "O":
        return given.kind in "OSU"
    return given.newbyteorder("=") == expected


def _stored(leaf: np.ndarray, column: Column) -> np.ndarray:
    if leaf.dtype.kind == "U":
        leaf = np.char.encode(leaf, "utf-8")
    return leaf.astype(column.dtype, copy=False)


def _checked_marks(
    layout: Layout, start: int, stop: int, marks: RowMarks
) -> tuple[list[str] | None, np.ndarray | None]:
    names = None
    if layout.has_names:
        names = [_printable(name) for name in marks.names or ()]
        if len(names) != stop - start:
            raise ValueError(
                f"Rows {start} to {stop} came with {len(names)} names. Expected one "
                "for each row."
            )
    missing = None if marks.missing is None else np.array(marks.missing, bool)
    if missing is not None and missing.shape != (stop - start,):
        raise ValueError(
            f"Rows {start} to {stop} came with marks of shape {missing.shape}. "
            f"Expected ({stop - start},)."
        )
    return names, missing if missing is not None and missing.any() else None


def _printable(name: str) -> str:
    """The name as valid UTF-8: bytes that are not text are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")
