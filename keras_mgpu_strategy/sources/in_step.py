"""Labels and sample weights in arrays or files of their own, read once, with the rows.

Both may come in batches of any size.
"""

import dataclasses
import math
from collections.abc import Generator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.nests import skeleton
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.sources.targets import for_each_output
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import (
    Nest,
    Ragged,
    RowMarks,
    Source,
    has_free_length,
    joined,
)

_BYTES_AT_A_TIME = 2**20


class Labels:
    """Labels or weights; rows are asked for in order, from any row on."""

    def __init__(self, name: str, source: Source) -> None:
        if source.spec is None:
            raise ValueError(f"{name} has no rows. Expected one per input row.")
        self._name, self._source = name, source
        self._flat: list[tf.TensorSpec] = tf.nest.flatten(source.spec)
        self._is_ragged = any(has_free_length(leaf.shape) for leaf in self._flat)
        self._buffer: RowBuffer | None = None

    def check(self, num_rows: int | None, is_limited: bool) -> None:
        """Refuses another number of rows than those of x, if both are known."""
        own = self._source.num_rows
        if own is None or num_rows is None or own == num_rows:
            return
        # With steps, a run may end before its labels do.
        if own < num_rows or not is_limited:
            raise ValueError(
                f"Received {num_rows} rows in x, but {own} in {self._name}. Expected "
                "one per input row, in the same order."
            )

    def check_end(self, stop: int) -> None:
        """Raises if there are more rows."""
        own = self._source.num_rows
        has_more = self._buffer_at(stop).fill() if own is None else own > stop
        if has_more:
            raise ValueError(
                f"x ended after {stop} rows, but there are more in {self._name}. "
                "Expected one per input row."
            )

    def settings(self) -> dict[str, Any]:
        """What distinguishes them from others."""
        about = origin_of(self._source).about
        return {f"{name} ({self._name})": value for name, value in about.items()}

    def rows(self, start: int, stop: int) -> Nest:
        """Arrays of some rows."""
        if start == stop:  # which might be one past the last
            return tf.nest.map_structure(_no_rows, self._source.spec)
        structure, parts, row = skeleton(self._source.spec), [], start
        while row < stop:
            found = next(self._buffer_at(row).batches(stop - row, structure), None)
            if found is None or (parts and not self._is_ragged):
                raise ValueError(
                    f"{self._name} ends, or its shape changes, at row {row}, but the "
                    f"input has row {row} too. Expected one per input row, of one "
                    "shape."
                )
            parts.append(found.inputs)
            row += found.num_rows
        if len(parts) == 1:
            return parts[0]
        return tf.nest.map_structure(lambda *leaves: joined(leaves), *parts)

    def _buffer_at(self, row: int) -> RowBuffer:
        if self._buffer is None or self._buffer.position != row:
            self._buffer = RowBuffer(self._pieces(row), row)
        return self._buffer

    def _pieces(self, start: int) -> Generator[Rows, None, None]:
        rows = [(y.dtype.size, *(n or 1 for n in y.shape[1:])) for y in self._flat]
        num_rows = max(_BYTES_AT_A_TIME // max(sum(map(math.prod, rows)), 1), 1)
        for batch in self._source.batches(num_rows, start):
            yield Rows(tf.nest.flatten(batch.inputs), batch.num_rows)


class InStep(Wrapped):
    """A source with labels that are read from sources of their own."""

    def __init__(self, labels: list[Labels], is_limited: bool, source: Source) -> None:
        super().__init__(source)
        self._labels, self._is_limited = labels, is_limited
        for each in labels:
            each.check(source.num_rows, is_limited)

    def label_settings(self) -> dict[str, Any]:
        """What distinguishes the labels from others."""
        return {k: v for each in self._labels for k, v in each.settings().items()}

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows, with their labels."""
        marks = marks_of(self._source)(start, stop)
        targets = [each.rows(start, stop) for each in self._labels]
        return dataclasses.replace(marks, targets=tuple(for_each_output(targets)))

    def check_label_end(self, stop: int) -> None:
        """Checks that labels end at a row, if the input does and has all its rows."""
        if not self._is_limited and self._source.num_rows in (None, stop):
            for each in self._labels:
                each.check_end(stop)


def label_settings(source: Any) -> dict[str, Any]:
    """What distinguishes the labels beside a source from others."""
    return getattr(source, "label_settings", dict)()


def check_label_end(source: Any, stop: int) -> None:
    """Checks that labels end where the rows end, if they are read on their own."""
    getattr(source, "check_label_end", lambda stop: None)(stop)


def _no_rows(leaf: tf.TensorSpec) -> np.ndarray | Ragged:
    is_ragged = has_free_length(leaf.shape)
    row: Any = leaf.shape[2:] if is_ragged else leaf.shape[1:]
    values = np.zeros((0, *row), leaf.dtype.as_numpy_dtype)
    return Ragged(values, np.zeros(1, np.int64)) if is_ragged else values
