"""Columns of lists of Arrow, read as rows that may differ in length."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import LIST, Choice, form_for
from keras_mgpu_strategy.formats.parquet.decoding import (
    arrow_values,
    check_nulls,
    decoded,
    first_lengths,
    lengths_of_lists,
)
from keras_mgpu_strategy.formats.parquet.schema import ColumnType, Part, column_type
from keras_mgpu_strategy.sources.row_errors import Fail, failing, failing_tokens
from keras_mgpu_strategy.types import Ragged

_REMEDY = "Only the first axis of rows, of tokens, may vary."


def is_ragged(choice: Choice, kind: ColumnType) -> bool:
    """Whether an input is a column of lists whose length the model leaves open."""
    shape = choice.input.row_shape
    may_vary = shape is None or (len(shape) > 0 and shape[0] is None)
    return may_vary and kind.kind == LIST and len(choice.columns) == 1


class RaggedColumn:
    """One column; the first of the lengths of its `kind` is a guess."""

    def __init__(self, choice: Choice, kind: ColumnType, missing_as_nan: bool) -> None:
        (self.name,) = choice.columns
        self.tokens = kind.lengths[0] or 1
        self._inner = tuple(length or 0 for length in kind.lengths[1:])
        self._form = form_for(
            _of_tokens(choice), [(kind.dtype, self._inner)], missing_as_nan
        )
        self._missing_as_nan = missing_as_nan
        dtype, shape = self._form.cast.dtype, self._form.row_shape
        self.spec = tf.TensorSpec((None, None, *shape), dtype)

    def read(self, part: Part, batch: Any, first: int) -> Ragged:
        """Returns the rows of a batch that begins at row `first`."""
        fail = failing(f"{part.path}, column {self.name!r}", first)
        column, is_float = batch.column(self.name), self._form.cast.dtype.is_floating
        as_nan = is_float and (self._missing_as_nan or self.name in part.schema.nan)
        rows = _decoded(column, self._inner, is_float, as_nan, fail)
        fail_token = failing_tokens(rows.offsets[1:], fail)
        values = self._form.cast.convert(rows.values, fail_token)
        values = values.reshape(len(values), *self._form.row_shape)
        return Ragged(values, rows.offsets)


def rows_of_column(column: Any, fail: Fail) -> Ragged:
    """Returns an Arrow array of lists as rows of the dtype that it has."""
    column = column.combine_chunks() if hasattr(column, "chunks") else column
    flat = arrow_values(arrow_values(column).flatten())
    kind = column_type(column.type)
    if kind.kind != LIST:
        raise ValueError(
            f"Received an Arrow array of {kind.shown}, expected lists of numbers, "
            "bools or strings."
        )
    inner = first_lengths(flat, len(kind.lengths) - 1)
    return _decoded(column, inner, False, False, fail)


def _decoded(
    column: Any, inner: tuple[int, ...], is_float: bool, as_nan: bool, fail: Fail
) -> Ragged:
    rows = arrow_values(column)
    check_nulls(rows, 1, "a list", fail)
    lengths = lengths_of_lists(rows)
    fail_token = failing_tokens(np.cumsum(lengths), fail)
    tokens = decoded(rows.flatten(), inner, is_float, as_nan, fail_token, _REMEDY)
    return Ragged.of_lengths(tokens, lengths)


def _of_tokens(choice: Choice) -> Choice:
    """The choice for the tokens of a column, each of which counts as a row."""
    declared = choice.input
    if declared.spec is None or not declared.spec.shape.rank:
        return choice
    spec = tf.TensorSpec((None, *declared.spec.shape[2:]), declared.spec.dtype)
    return dataclasses.replace(choice, input=declared._replace(spec=spec))
