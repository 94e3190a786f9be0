"""The cells of a table's columns, made into the rows of a model input.

Guarantees:

* Dtypes follow the same rule as those of arrays (`inputs/casting.py`).
* Values are brought into the shape that the model declares where they are as many.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs.casting import Cast, cast_for
from keras_mgpu_strategy.inputs.files.columns import Choice
from keras_mgpu_strategy.inputs.row_errors import failing


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
            BadRow: A value is none that the model takes.
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
    choice: Choice, cells: Sequence[tuple[np.dtype | None, tuple[int | None, ...]]]
) -> Form:
    """Returns the form of one input.

    Args:
        choice: The columns chosen.
        cells: The dtype of each column, strings as kind "S", and the lengths of the
            lists in it, None where there is no row to tell.
    """
    dtypes = [dtype for dtype, _ in cells if dtype is not None]
    lengths = cells[0][1]
    is_stack = len(cells) > 1 or (choice.is_stacked and not lengths)
    natural = (len(cells),) if is_stack else lengths
    names = ", ".join(choice.columns)
    cast = cast_for(np.result_type(*dtypes), names, choice.input.wanted)
    return Form(_row_shape(choice, natural), cast, choice.columns)


def _row_shape(choice: Choice, natural: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape that the model declares, where it holds as many values."""
    declared = choice.input.row_shape
    found = tuple(length or 0 for length in natural)
    if declared is None:
        return found
    known = tuple(size or 0 for size in declared)
    if None in natural:
        # Without a row, nothing tells the lengths of lists.
        return known
    fits = None not in declared and math.prod(known) == math.prod(found)
    return known if fits else found
