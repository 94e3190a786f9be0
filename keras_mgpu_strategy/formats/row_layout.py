"""The cells of a table's columns, made into the rows of a model input.

Guarantees:

* Dtypes follow the same rule as those of arrays (`inputs/casting.py`).
* Values are reshaped to the shape that the model declares if there are as many.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.columns import Choice
from keras_mgpu_strategy.sources.casting import Cast, Wanted, cast_for
from keras_mgpu_strategy.sources.row_errors import failing
from keras_mgpu_strategy.sources.safe_casts import common_dtype


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How the columns of one input become its rows.

    Args:
        row_shape: Of the rows.
        cast: Their conversion.
        columns: Names of the columns.
    """

    row_shape: tuple[int, ...]
    cast: Cast
    columns: tuple[str, ...]

    @property
    def spec(self) -> tf.TensorSpec:
        """The rows with the batch axis unknown."""
        return tf.TensorSpec((None, *self.row_shape), self.cast.dtype)

    def join(
        self, cells: Sequence[np.ndarray], first: int, where: object
    ) -> np.ndarray:
        """Returns the rows.

        Args:
            cells: One array for each column, each with as many rows.
            first: Index of the first row, for messages.
            where: Names the file in messages.

        Returns:
            An array of shape `(rows, *row_shape)`.

        Raises:
            BadRow: A value is not one that the model accepts.
        """
        converted = [
            self.cast.convert(column, failing(f"{where}, column {name!r}", first))
            for name, column in zip(self.columns, cells, strict=True)
        ]
        shape = (len(cells[0]), *self.row_shape)
        if len(converted) == 1:
            return converted[0].reshape(shape)
        return np.stack(converted, axis=1).reshape(shape)


def form_for(
    choice: Choice,
    cells: Sequence[tuple[np.dtype | None, tuple[int | None, ...]]],
    missing_as_nan: bool,
) -> Form:
    """Returns the form of one input.

    Args:
        choice: The columns chosen.
        cells: The dtype of each column, strings as kind "S", None if it has no value;
            and the lengths of the lists in it, None if there is no row.
        missing_as_nan: Whether integers and bools become floats to allow NaN, unless
            the model takes integers or bools.
    """
    lengths = cells[0][1]
    is_stack = len(cells) > 1 or (choice.is_stacked and not lengths)
    natural = (len(cells),) if is_stack else lengths
    names, wanted = ", ".join(choice.columns), choice.input.wanted
    dtypes = [dtype for dtype, _ in cells if dtype is not None]
    if missing_as_nan and _takes_floats(wanted):
        dtypes = [np.dtype(np.float64) if d.kind in "biu" else d for d in dtypes]
    cast = cast_for(_common(dtypes, wanted), names, wanted)
    return Form(_row_shape(choice, natural), cast, choice.columns)


def _takes_floats(wanted: Wanted) -> bool:
    return not isinstance(wanted, tf.DType) or wanted.is_floating


def _common(dtypes: list[np.dtype], wanted: Wanted) -> np.dtype:
    """The dtype that columns have in common."""
    if not dtypes:
        return np.dtype("S" if wanted == tf.string else np.float64)
    common = common_dtype(dtypes)
    is_float = isinstance(wanted, tf.DType) and wanted.is_floating
    return np.result_type(*dtypes) if is_float and common.kind in "iu" else common


def _row_shape(choice: Choice, natural: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape that the model declares, if it holds as many values."""
    declared = choice.input.row_shape
    found = tuple(length or 0 for length in natural)
    if declared is None:
        return found
    known = tuple(size or 0 for size in declared)
    if None in natural:
        # Without a row, the lengths of lists are unknown.
        return known
    fits = None not in declared and math.prod(known) == math.prod(found)
    return known if fits else found
