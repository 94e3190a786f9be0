"""Turns what a stream yields, one element per batch, into checked rows.

Guarantees:

* Every batch of a stream is checked against what the model declares, and against the
  structure of the first one; an error names the batch and its first row.
* All batches have the dtypes of the first one. A batch with other dtypes is converted
  if no value changes, and is an error otherwise.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from keras_mgpu_strategy.sources.arrays import Leaves, as_leaves
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.row_errors import failing
from keras_mgpu_strategy.types import Nest

Form: TypeAlias = Callable[[Any], Nest]
"""Returns the part of an element that the model is given."""


def inputs_of(element: Any) -> Nest:
    """Returns x of an element `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    As in Keras, a list counts as a tuple here. Several inputs without targets are
    therefore `((a, b),)`, or a dict.

    Raises:
        ValueError: If a tuple has another length.
    """
    if not isinstance(element, (tuple, list)):
        return element
    if not 1 <= len(element) <= 3:
        raise ValueError(
            f"received a {type(element).__name__} of {len(element)} items, expected "
            "(x,), (x, y) or (x, y, sample_weight). Wrap several inputs as one: "
            "((a, b, ...),)."
        )
    return element[0]


class ElementReader:
    """Turns elements into rows and checks them against the model and the first one.

    Args:
        input_spec: What the model declares.
        form: Returns the part of an element that the model is given.

    Attributes:
        spec: Nest of `tf.TensorSpec` of the first element, the batch axis None;
            None before anything has been read.
        structure: Skeleton of the first element, for `nests.pack`.
    """

    def __init__(self, input_spec: Nest = None, form: Form = inputs_of) -> None:
        self._form = form
        self.spec: Nest = None
        self.structure: Nest = None
        self._input_spec = input_spec
        self._first: list[Leaf] = []
        self._num_read = 0

    def read(self, element: Any, first_row: int) -> Rows:
        """Returns the rows of the next element.

        Args:
            element: What the user's stream gave.
            first_row: Index of its first row; named in messages.

        Raises:
            TypeError: If it holds something that is not an array.
            ValueError: If its structure, shapes, lengths, dtypes or values do not fit.
        """
        try:
            rows = self._rows(element, first_row)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"Batch {self._num_read} (first row {first_row}): {error}"
            ) from error
        self._num_read += 1
        return rows

    def _rows(self, element: Any, first_row: int) -> Rows:
        given = as_leaves(self._form(element), self._input_spec)
        self._check_structure(given)
        found = given.flat
        num_rows = found[0].shape[0]
        flat, shared = [], []
        for leaf, first in zip(found, self._first, strict=True):
            fitted = dataclasses.replace(leaf, cast=first.cast)
            fail = failing(leaf.path, first_row)
            rows, is_shared = fitted.view(0, num_rows, fail)
            flat.append(rows)
            # Tensors too: tf.numpy_function may return the function's own memory.
            shared.append(is_shared and leaf.memory is not Memory.NEW)
        return Rows(flat, num_rows, tuple(shared))

    def _check_structure(self, given: Leaves) -> None:
        found = given.flat
        if self._num_read == 0:
            self._first = found
            self.structure = given.structure
            self.spec = given.spec
        elif [leaf.path for leaf in found] != [leaf.path for leaf in self._first]:
            raise ValueError(
                f"received {_listed(found)}, expected {_listed(self._first)} as in "
                "batch 0. Yield the same inputs every time: an optional input in all "
                "batches or in none, and sparse or dense rows."
            )


def _listed(found: list[Leaf]) -> str:
    return ", ".join(leaf.path for leaf in found)
