"""The labels of a run's rows: handed over as arrays, or read from files of their own.

They are read once, in step with the results, whatever batches those come in.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.gather import resplit
from keras_mgpu_strategy.inputs import as_source, origin_of
from keras_mgpu_strategy.runs.model_rows import ModelRows
from keras_mgpu_strategy.types import HostBatch, Nest

_ROWS_AT_A_TIME = 256


class Labels:
    """Labels with a row for each row of the input."""

    def __init__(self, labels: Any, rows: ModelRows, *, has_steps: bool):
        self._source = as_source(_as_arrays(labels))
        if self._source.spec is None:
            raise ValueError("The labels have no rows. Expected one per input row.")
        self._wanted = 0
        self._parts: Iterator[HostBatch] | None = None
        num_rows, of_input = self._source.num_rows, rows.whole.num_rows
        if num_rows is None or of_input is None or num_rows == of_input:
            return
        # With steps, the run may end before the input does.
        if num_rows < of_input or not has_steps:
            raise ValueError(
                f"The labels have {num_rows} rows, the input has {of_input}. Expected "
                "one label per input row, in the same order."
            )

    def settings(self) -> dict[str, Any]:
        """What distinguishes them from other labels."""
        about = origin_of(self._source).about
        return {f"{name} (labels)": value for name, value in about.items()}

    def spec(self, batch: HostBatch) -> Nest:
        """Nest of `tf.TensorSpec` of the labels of a batch, the batch axis None."""
        del batch
        return self._source.spec

    def take(self, batch: HostBatch) -> Nest:
        """The labels of a batch; batches come in row order, without a gap."""
        if not batch.num_rows:  # which might be one past the last
            return tf.nest.map_structure(_no_rows, self._source.spec)
        if self._parts is None:
            read = self._source.batches(_ROWS_AT_A_TIME, batch.start)
            found = (HostBatch(part.start, part.inputs) for part in read)
            self._parts = resplit(found, lambda: self._wanted)
        self._wanted = batch.num_rows
        labels = next(self._parts, None)
        if labels is None or labels.num_rows != batch.num_rows:
            stop = batch.start if labels is None else labels.stop
            raise ValueError(
                f"The labels end, or their shape changes, at row {stop}, but the input "
                f"has row {stop} too. Expected one label per input row, of one shape."
            )
        return labels.outputs

    def check_end(self, stop: int) -> None:
        """Checks that labels whose number was not known end where the input does."""
        if self._source.num_rows is not None or self._parts is None:
            return
        self._wanted = 1
        more = next(self._parts, None)
        if more is not None and more.num_rows:
            raise ValueError(
                f"The input ended after {stop} rows, but there are more labels. "
                "Expected one label per input row."
            )


def labels_of(labels: Any, rows: ModelRows, steps: int | None) -> Labels:
    """The labels of a run; a string names a column of its input."""
    if isinstance(labels, str):
        raise ValueError(
            f"labels={labels!r} names a column, but labels are not read from columns "
            f"of the input. Pass pathlib.Path({labels!r}) for a file."
        )
    return Labels(labels, rows, has_steps=steps is not None)


def _no_rows(leaf: tf.TensorSpec) -> np.ndarray:
    shape: Any = (0, *leaf.shape[1:])
    return np.zeros(shape, leaf.dtype.as_numpy_dtype)


def _as_arrays(labels: Any) -> Any:
    """Labels as users write them, with arrays in place of lists of numbers."""
    if isinstance(labels, dict):
        return {name: _as_arrays(inner) for name, inner in labels.items()}
    if not isinstance(labels, list | tuple) or not labels:
        return labels
    first: Any = labels
    while isinstance(first, list | tuple) and first:
        first = first[0]
    is_number = isinstance(first, bool | int | float | np.generic)
    return np.asarray(labels) if is_number else labels
