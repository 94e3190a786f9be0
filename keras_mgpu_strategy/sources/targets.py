"""Labels and sample weights that come with the rows: in columns, or in elements.

They travel as `RowMarks.targets`, `(y,)` or `(y, sample_weight)`, and are read once.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import as_tuples, is_nest, map_nest
from keras_mgpu_strategy.sources.array_kinds import as_leaf
from keras_mgpu_strategy.sources.arrays import Leaves
from keras_mgpu_strategy.sources.kept import KeptElements, schema_of
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.types import Nest, RowMarks, Source, Undeclared


class ByColumn(Wrapped):
    """A source with targets in columns that it keeps; `names` is a nest of theirs.

    Columns that are `hidden` are kept for this alone.
    """

    def __init__(
        self,
        names: tuple[Nest, ...],
        hidden: Sequence[str],
        values_of: Callable[[Any, Fail], Any],
        source: Source,
    ) -> None:
        super().__init__(source)
        self._names, self._hidden = as_tuples(names), list(hidden)
        self._values_of = values_of

    @property
    def kept_schema(self) -> Any:
        """The columns that are stored; None if there are none."""
        import pyarrow as pa

        schema = schema_of(self._source)
        fields = [field for field in schema if field.name not in self._hidden]
        return pa.schema(fields) if fields else None

    def label_settings(self) -> dict[str, Any]:
        """What distinguishes the labels from others."""
        return {"labels": repr(self._names)}

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows, with their targets; without any if no row."""
        marks = marks_of(self._source)(start, stop)
        table, rest = marks.kept, marks.kept.drop_columns(self._hidden)
        marks = dataclasses.replace(marks, kept=rest if rest.num_columns else None)
        if start == stop:
            return marks

        def values(name: str) -> Any:
            return self._values_of(table[name], failing(f"Column {name!r}", start))

        floats = tf.as_dtype(keras.config.floatx())
        found = as_targets(map_nest(values, self._names), floats)
        rows = [leaf.read(0, stop - start) for leaf in found.flat]
        return dataclasses.replace(marks, targets=pack(found.structure, rows))


class OfElements(Wrapped):
    """A stream, with y and the weights of its elements; `sizes` are their rows.

    `form` brings y and weights into a form in which rows may differ in length.
    """

    def __init__(
        self, source: StreamSource | KeptElements, form: Callable[[Nest], Nest]
    ) -> None:
        super().__init__(source)
        self._form = form
        self._paths: list[str] | None = None
        self.sizes: collections.deque[int] = collections.deque()
        source.companions.append(self._with_targets)

    def _with_targets(
        self, marks: RowMarks, element: Any, first_row: int, num_rows: int
    ) -> RowMarks:
        if first_row == 0:  # of each pass
            self.sizes.clear()
        if num_rows:
            self.sizes.append(num_rows)
        targets = targets_of(element)
        found = as_targets(self._form(targets), None) if targets else Leaves([], ())
        paths = [leaf.path for leaf in found.flat]
        self._paths = paths if self._paths is None else self._paths
        if paths != self._paths:
            raise ValueError(
                f"received {paths or 'no labels'} beside x, expected "
                f"{self._paths or 'no labels'} as in batch 0."
            )
        rows = [_rows(leaf, first_row, num_rows) for leaf in found.flat]
        packed = pack(found.structure, rows) if rows else None
        return dataclasses.replace(marks, targets=packed)


def targets_of(element: Any) -> tuple[Nest, ...]:
    """Returns `(y,)` or `(y, sample_weight)` of an element, up to the first None."""
    rest = element[1:] if isinstance(element, tuple | list) else ()
    return tuple(itertools.takewhile(lambda part: part is not None, rest))


def for_each_output(given: list[Nest]) -> list[Nest]:
    """Repeats weights that are one array if there are several labels, as in Keras."""
    y, *rest = given
    if not rest or not is_nest(y):
        return given
    if not is_nest(rest[0]):
        return [y, map_nest(lambda _: rest[0], y)]
    try:
        tf.nest.assert_same_structure(y, rest[0], check_types=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sample_weight and y differ in structure ({error}). Expected one array, "
            "or an array for each of the labels."
        ) from error
    return given


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


def _rows(leaf: Leaf, first_row: int, num_rows: int) -> np.ndarray:
    if leaf.shape[0] != num_rows:
        raise ValueError(
            f"{leaf.path} has {leaf.shape[0]} rows, but x has {num_rows}. Expected a "
            "label for each row."
        )
    rows, is_shared = leaf.view(0, num_rows, failing(leaf.path, first_row))
    return rows.copy() if is_shared and leaf.memory is not Memory.NEW else rows
