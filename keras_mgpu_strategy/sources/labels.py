"""Labels and sample weights beside rows, by position or from the elements of a stream.

They travel as `RowMarks.targets`, `(y,)` or `(y, sample_weight)`, and are read once,
with their rows.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import as_tuples, map_nest
from keras_mgpu_strategy.sources.array_kinds import as_leaf
from keras_mgpu_strategy.sources.arrays import Leaves
from keras_mgpu_strategy.sources.arrow_values import numpy_of
from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.sources.kept_elements import KeptElements
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.row_errors import failing
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import (
    InputBatch,
    Nest,
    RowMarks,
    Source,
    Undeclared,
    cut,
)


class ByPosition(Wrapped):
    """A source whose row `i` belongs to row `i` of `targets`, nests of array-likes.

    If it `is_limited`, it has only the first rows of an input, and may be shorter.
    """

    def __init__(
        self, targets: tuple[Nest, ...], is_limited: bool, source: Source
    ) -> None:
        super().__init__(source)
        self._is_limited = is_limited
        self._leaves = as_targets(targets, _floatx())
        self._num_targets = self._leaves.flat[0].shape[0]
        self._check(source.num_rows)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields the source's batches; ValueError if it ends before the targets."""
        stop = start
        for batch in self._source.batches(batch_size, start):
            yield batch
            stop = batch.start + batch.num_rows
        self._check(stop)

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows, with their targets."""
        if stop > self._num_targets:
            self._check(stop)
        rows = [leaf.read(start, stop) for leaf in self._leaves.flat]
        targets = pack(self._leaves.structure, rows)
        return dataclasses.replace(marks_of(self._source)(start, stop), targets=targets)

    def _check(self, num_rows: int | None) -> None:
        if num_rows is None or num_rows == self._num_targets:
            return
        if self._is_limited and num_rows < self._num_targets:
            return
        names = [leaf.path for leaf in self._leaves.flat]
        raise ValueError(
            f"Received {num_rows} rows in x, but {self._num_targets} in "
            f"{' and '.join(names)}. Expected a label for each row."
        )


class ByColumn(Wrapped):
    """A source with targets in columns that it keeps; `names` is a nest of theirs."""

    def __init__(self, names: tuple[Nest, ...], source: Source) -> None:
        super().__init__(source)
        self._names = as_tuples(names)

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows, with their targets; without any if no row."""
        marks = marks_of(self._source)(start, stop)
        if start == stop:
            return marks

        def values(name: str) -> np.ndarray:
            return numpy_of(marks.kept[name], failing(f"Column {name!r}", start))

        found = as_targets(map_nest(values, self._names), _floatx())
        rows = [leaf.read(0, stop - start) for leaf in found.flat]
        return dataclasses.replace(marks, targets=pack(found.structure, rows))


class OfElements(Wrapped):
    """A stream, with y and the weights of its elements; `sizes` are their rows."""

    def __init__(self, source: StreamSource | KeptElements) -> None:
        super().__init__(source)
        self._paths: list[str] | None = None
        self._beside: Beside[tuple[Nest, ...]] = Beside(cut)
        self.sizes: collections.deque[int] = collections.deque()
        source.companions.append(self)

    def begin(self) -> None:
        """Called before the first element is read, each time."""
        self._beside.restart()
        self.sizes.clear()

    def add(self, element: Any, first_row: int, num_rows: int) -> None:
        """Called with each element, by the thread that reads it."""
        targets = targets_of(element)
        found = as_targets(targets, None) if targets else Leaves([], ())
        paths = [leaf.path for leaf in found.flat]
        self._paths = paths if self._paths is None else self._paths
        if paths != self._paths:
            raise ValueError(
                f"received {paths or 'no labels'} beside x, expected "
                f"{self._paths or 'no labels'} as in batch 0."
            )
        rows = [_rows(leaf, first_row, num_rows) for leaf in found.flat]
        self._beside.put(first_row, num_rows, pack(found.structure, rows))
        if num_rows:
            self.sizes.append(num_rows)

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows that were read, with their targets."""
        marks = marks_of(self._source)(start, stop)
        pieces = self._beside.between(start, stop)
        if not self._paths or not pieces:
            return marks
        joined = tf.nest.map_structure(lambda *rows: np.concatenate(rows), *pieces)
        return dataclasses.replace(marks, targets=joined)


def targets_of(element: Any) -> tuple[Nest, ...]:
    """Returns `(y,)` or `(y, sample_weight)` of an element; empty without y."""
    rest = element[1:] if isinstance(element, tuple | list) else ()
    return tuple(itertools.takewhile(lambda part: part is not None, rest))


def as_targets(targets: tuple[Nest, ...], floats: tf.DType | None) -> Leaves:
    """Returns the leaves of `(y,)` or `(y, sample_weight)`, floats of that dtype."""
    targets = as_tuples(targets)
    named = zip(("y", "sample_weight"), targets, strict=False)
    pairs = [pair for name, nest in named for pair in leaves(nest, name)]
    flat = [as_leaf(leaf, path).fitted(Undeclared(floats)) for path, leaf in pairs]
    if len({leaf.shape[0] for leaf in flat}) != 1:
        lengths = ", ".join(f"{leaf.path}: {leaf.shape[0]}" for leaf in flat)
        raise ValueError(
            f"Received labels and weights of unequal length ({lengths}), expected the "
            "same number of rows in each."
        )
    return Leaves(flat, skeleton(targets))


def _floatx() -> tf.DType:
    return tf.as_dtype(keras.config.floatx())


def _rows(leaf: Leaf, first_row: int, num_rows: int) -> np.ndarray:
    if leaf.shape[0] != num_rows:
        raise ValueError(
            f"{leaf.path} has {leaf.shape[0]} rows, but x has {num_rows}. Expected a "
            "label for each row."
        )
    rows, is_shared = leaf.view(0, num_rows, failing(leaf.path, first_row))
    return rows.copy() if is_shared and leaf.memory is not Memory.NEW else rows
