"""What is known about rows besides the model's inputs, applied to their results.

The results of a row that could not be read never pass for real results.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import NO_MARKS, HostBatch, Ragged, RowMarks

MarksOf = Callable[[int, int], RowMarks]


def no_marks(start: int, stop: int) -> RowMarks:
    """The marks of a source that has none."""
    del start, stop
    return NO_MARKS


def marks_of(source: Any) -> MarksOf:
    """Returns the function that gives a source's marks of rows."""
    return getattr(source, "marks", no_marks)


def masked(
    batches: Iterable[HostBatch], *, floats_only: bool = False
) -> Iterator[HostBatch]:
    """Makes results of unread rows NaN; other dtypes fail unless `floats_only`."""
    for batch in batches:
        missing = batch.marks.missing
        if missing is None or not missing.any():
            yield batch
            continue
        for array in tf.nest.flatten(batch.outputs):
            if not floats_only and not is_float(array):
                row = batch.start + int(np.argmax(missing))
                raise ValueError(
                    f"Row {row} could not be read, and results of dtype {array.dtype} "
                    'cannot say so: they have no NaN. Pass on_bad_file="raise", call '
                    "predict_proba or predict, or write to .parquet or .csv."
                )
        outputs = tf.nest.map_structure(
            lambda array, missing=missing: _with_nan(array, missing), batch.outputs
        )
        yield dataclasses.replace(batch, outputs=outputs)


def is_float(array: np.ndarray | Ragged) -> bool:
    """Whether values can be NaN; bfloat16 and the like are of NumPy's kind "V"."""
    return array.dtype.kind in "fcV"


def _with_nan(array: Any, missing: np.ndarray) -> Any:
    if not is_float(array):
        return array
    if isinstance(array, Ragged):
        lost = np.repeat(missing, array.lengths)
        return array.mapped(lambda values: _with_nan(values, lost))
    array = array.copy()
    array[missing] = np.nan
    return array
