"""Labels of a run's rows, wherever they are: in x, in arrays, or in files of their own.

They travel as `RowMarks.targets`. Labels that are not in x are read once, in step with
the rows, in whatever batches both come.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import map_nest
from keras_mgpu_strategy.formats.by_path import names_files
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.inputs.arrow_tables import is_table
from keras_mgpu_strategy.inputs.labels import column, without
from keras_mgpu_strategy.inputs.opening import as_source
from keras_mgpu_strategy.sources.kept import schema_of
from keras_mgpu_strategy.sources.kept_elements import KeptElements
from keras_mgpu_strategy.sources.labels import ByColumn, OfElements
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.nests import leaves, skeleton
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest, RowMarks, Source

_BYTES_AT_A_TIME = 2**20


def labelled(
    x: Any, labels: Any, keep: Sequence[str], steps: int | None
) -> dict[str, Any]:
    """Returns x, the columns to `keep` and what is to `attach` the labels, by name.

    `labels` is None for those in the elements of x, or names columns of x, which then
    are not inputs, or has rows itself.
    """
    labels, attach = _as_arrays(labels), _of_elements
    names = list(dict.fromkeys(n for _, n in leaves(labels) if isinstance(n, str)))
    is_file = is_table(x) or names_files(x) or isinstance(x, FileInput)
    if names and (is_file or not {*names}.isdisjoint(keep)):
        import_extra("pyarrow", "parquet", "Labels in columns")
        hidden = [name for name in names if name not in keep]
        keep, attach = (*keep, *hidden), functools.partial(_Kept, labels, hidden)
    elif labels is not None:
        if names:
            read = functools.partial(column, x)
            labels = map_nest(lambda y: read(y) if isinstance(y, str) else y, labels)
            x = without(x, names)
        attach = functools.partial(_Read, as_source(labels), steps is not None)
    return {"x": x, "keep": keep, "attach": attach}


def settings_of(source: Any) -> dict[str, Any]:
    """What distinguishes the labels beside a source from others."""
    return getattr(source, "label_settings", dict)()


def check_end(source: Any, stop: int) -> None:
    """Checks that labels end where the rows end, if they are read on their own."""
    getattr(source, "check_label_end", lambda stop: None)(stop)


class _Kept(ByColumn):
    """Labels that are read as kept columns; those that are `hidden` are not stored."""

    def __init__(self, names: Nest, hidden: Sequence[str], source: Source) -> None:
        super().__init__((names,), source)
        self._hidden = list(hidden)

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
        """What is known about rows, with their labels."""
        marks = super().marks(start, stop)
        kept = marks.kept.drop_columns(self._hidden)
        return dataclasses.replace(marks, kept=kept if kept.num_columns else None)


class _Read(Wrapped):
    """Labels that are read from a source of their own, in the order of the rows."""

    def __init__(self, labels: Source, is_limited: bool, source: Source) -> None:
        super().__init__(source)
        if labels.spec is None:
            raise ValueError("The labels have no rows. Expected one per input row.")
        self._labels = labels
        self._is_limited = is_limited
        self._buffer: RowBuffer | None = None
        num_labels, num_rows = labels.num_rows, source.num_rows
        if num_labels is None or num_rows is None or num_labels == num_rows:
            return
        # With steps, a run may end before its labels do.
        if num_labels < num_rows or not is_limited:
            raise ValueError(
                f"The labels have {num_labels} rows, the input has {num_rows}. "
                "Expected one label per input row, in the same order."
            )

    def label_settings(self) -> dict[str, Any]:
        """What distinguishes the labels from others."""
        about = origin_of(self._labels).about
        return {f"{name} (labels)": value for name, value in about.items()}

    def marks(self, start: int, stop: int) -> RowMarks:
        """What is known about rows, with their labels."""
        marks = marks_of(self._source)(start, stop)
        return dataclasses.replace(marks, targets=(self._rows(start, stop),))

    def check_label_end(self, stop: int) -> None:
        """Checks that labels end at a row, if the input does and has all its rows."""
        num_rows, num_labels = self._source.num_rows, self._labels.num_rows
        if self._is_limited or num_rows not in (None, stop):
            return
        if num_labels is None:
            has_more = self._buffer is not None and self._buffer.fill()
        else:
            has_more = num_labels > stop
        if has_more:
            raise ValueError(
                f"The input ended after {stop} rows, but there are more labels. "
                "Expected one label per input row."
            )

    def _rows(self, start: int, stop: int) -> Nest:
        if start == stop:  # which might be one past the last
            return tf.nest.map_structure(_no_rows, self._labels.spec)
        if self._buffer is None or self._buffer.position != start:
            self._buffer = RowBuffer(self._pieces(start), start)
        found = next(
            self._buffer.batches(stop - start, skeleton(self._labels.spec)), None
        )
        end = start + (0 if found is None else found.num_rows)
        if found is None or end < stop:
            raise ValueError(
                f"The labels end, or their shape changes, at row {end}, but the input "
                f"has row {end} too. Expected one label per input row, of one shape."
            )
        return found.inputs

    def _pieces(self, start: int) -> Generator[Rows, None, None]:
        row = tf.nest.flatten(self._labels.spec)
        sizes = [y.dtype.size * math.prod(n or 1 for n in y.shape[1:]) for y in row]
        num_rows = max(_BYTES_AT_A_TIME // max(sum(sizes), 1), 1)
        for batch in self._labels.batches(num_rows, start):
            yield Rows(tf.nest.flatten(batch.inputs), batch.num_rows)


def _of_elements(source: Source) -> Source:
    if isinstance(source, StreamSource | KeptElements):
        return OfElements(source)
    raise ValueError(
        "Received metrics= without labels=, and x is not a generator or data set of "
        "elements (x, y). Pass labels=, with one row per input row."
    )


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
