"""What a stream yields, one element per batch, turned into checked rows.

Guarantees:

* All batches of a stream have the structure and the dtypes of the first one.
* A stream that fills one array again and again is noticed, and its batches are
  copied; rows handed out earlier never change. (A stream that alternates between
  several arrays of its own is not noticed.)
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.inputs.arrays import Leaf, as_leaves
from keras_mgpu_strategy.inputs.nests import pack, skeleton
from keras_mgpu_strategy.inputs.rebatch import Rows
from keras_mgpu_strategy.types import Nest


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
    """Turns elements into rows and holds them to the first one.

    Attributes:
        spec: Nest of `tf.TensorSpec` of the first element, the batch axis None;
            None as long as nothing has been read.
        structure: Skeleton of the first element, for `nests.pack`.
    """

    def __init__(self) -> None:
        self.spec: Nest = None
        self.structure: Nest = None
        self._kinds: list[tuple[str, tf.DType]] = []
        self._previous: list[np.ndarray] = []
        self._num_read = 0
        self._copies = False

    def read(self, element: Any, first_row: int) -> Rows:
        """Returns the rows of the next element.

        Args:
            element: What the user's stream gave.
            first_row: Index of its first row; named in messages.

        Raises:
            TypeError: If it holds something that is not an array.
            ValueError: If its structure, dtypes or lengths do not fit.
        """
        try:
            rows = self._rows(element)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"Batch {self._num_read} (first row {first_row}): {error}"
            ) from error
        self._num_read += 1
        return rows

    def _rows(self, element: Any) -> Rows:
        x = inputs_of(element)
        found = as_leaves(x)
        self._check_kinds(found, x)
        num_rows = found[0].shape[0]
        return Rows(self._guard([leaf.read(0, num_rows) for leaf in found]), num_rows)

    def _check_kinds(self, found: list[Leaf], x: Nest) -> None:
        kinds = [(leaf.path, leaf.dtype) for leaf in found]
        if self._num_read == 0:
            self._kinds = kinds
            self.structure = skeleton(x)
            self.spec = pack(self.structure, [leaf.spec for leaf in found])
        elif kinds != self._kinds:
            raise ValueError(
                f"received {_listed(kinds)}, expected {_listed(self._kinds)} as in "
                "batch 0. Yield the same inputs and dtypes every time."
            )

    def _guard(self, flat: list[np.ndarray]) -> list[np.ndarray]:
        """Copies the first batch, and all others once memory is seen again."""
        if self._num_read == 1:
            pairs = zip(self._previous, flat, strict=True)
            self._copies = any(np.may_share_memory(old, new) for old, new in pairs)
            self._previous = []
        if self._num_read == 0:
            self._previous = flat
        if self._num_read == 0 or self._copies:
            return [a.copy() if a.flags.writeable else a for a in flat]
        return flat


def _listed(kinds: list[tuple[str, tf.DType]]) -> str:
    return ", ".join(f"{path} ({dtype.name})" for path, dtype in kinds)
