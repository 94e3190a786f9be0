"""Nests of array-likes, sliced on axis 0.

Only the requested rows are read; they are views where memory and dtype allow. All
leaves have the same number of rows, which do not change after they are handed out, even
if an array-like reuses memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

from keras_mgpu_strategy.element_forms import SparseRows
from keras_mgpu_strategy.sources.array_kinds import ACCEPTED, as_leaf
from keras_mgpu_strategy.sources.checks import check_start
from keras_mgpu_strategy.sources.leaf import Leaf
from keras_mgpu_strategy.sources.matching import Match, match_inputs
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.origins import origin_of_arrays
from keras_mgpu_strategy.sources.ragged_leaf import RaggedLeaf, check_rows
from keras_mgpu_strategy.sources.row_lists import refusing_ragged
from keras_mgpu_strategy.types import InputBatch, Nest, Origin

_SHOWN = 8


class Leaves(NamedTuple):
    """The leaves of a nest; a sparse one has two entries, its values and places."""

    flat: list[Leaf]
    structure: Nest

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`, the batch axis None."""
        return pack(self.structure, [leaf.spec for leaf in self.flat])


def as_leaves(x: Nest, input_spec: Nest = None, name: str = "x") -> Leaves:
    """Returns leaves in the declared dtypes; TypeError or ValueError if unfit."""
    with refusing_ragged(x, name):
        found = [as_leaf(leaf, path) for path, leaf in leaves(x, name)]
    if not found:
        kind = type(x).__name__
        shown = f"a {kind} of None alone" if x else f"an empty {kind}"
        raise ValueError(f"Received {shown}, expected {ACCEPTED}.")
    if len({leaf.shape[0] for leaf in found}) > 1:
        lengths = ", ".join(f"{leaf.path}: {leaf.shape[0]}" for leaf in found[:_SHOWN])
        lengths += ", ..." if len(found) > _SHOWN else ""
        hint = " For rows of unequal length, pass pad=mgpu.Pad()."
        is_padded = any(isinstance(leaf, RaggedLeaf) for leaf in found)
        raise ValueError(
            f"Received inputs of unequal length ({lengths}), expected the same number "
            f"of rows in each.{'' if is_padded else hint}"
        )
    plain = Leaves(found, skeleton(x))
    matches = match_inputs(plain.spec, input_spec)
    flat, kinds = [], []
    for leaf in found:
        match = matches.get(leaf.path, Match())
        places = leaf.of_places() if match.stays_sparse else None
        flat += [leaf.fitted(match.dtype), *([] if places is None else [places])]
        kinds.append(None if places is None else SparseRows(None, None))
    return Leaves(flat, pack(plain.structure, kinds))


class ArraySource:
    """A `Source` over a nest; raises as `as_leaves` does. `num_rows` may be reduced."""

    def __init__(self, x: Nest, input_spec: Nest = None, name: str = "x") -> None:
        self._x = x
        self._leaves = as_leaves(x, input_spec, name)
        self.spec = self._leaves.spec
        check_rows(self._leaves.flat)
        self.num_rows: int = self._leaves.flat[0].shape[0]

    def origin(self) -> Origin:
        """What distinguishes the values from others."""
        return origin_of_arrays(self._x, self._leaves.flat, self.num_rows)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows; the last one may be shorter."""
        check_start(start, self.num_rows)
        return self._read(batch_size, start)

    def _read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        flat, structure = self._leaves
        for first in range(start, self.num_rows, batch_size):
            stop = min(first + batch_size, self.num_rows)
            rows = [leaf.read(first, stop) for leaf in flat]
            yield InputBatch(first, stop - first, pack(structure, rows))
