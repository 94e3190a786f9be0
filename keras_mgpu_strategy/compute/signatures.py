"""What compiled steps depend on, and how few are kept when shapes vary.

For each structure of inputs, an axis that was seen with two lengths is None from then
on, so a step is traced at most once per axis beyond the first.
"""

import dataclasses
import math
import threading
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.types import Nest

StepKind: TypeAlias = Literal["plain", "frozen", "xla"]
"""How a step is compiled: as it is, with weights as constants, or by XLA."""


def spec_key(spec: Nest) -> Any:
    """Hashable form of a nest of `tf.TensorSpec`."""
    return _structure(spec), tuple(tf.nest.flatten(spec))


def _structure(nest: Nest) -> str:
    return repr(tf.nest.map_structure(lambda _: 0, nest))


def example_inputs(spec: Nest, num_rows: int, unknown: int = 1) -> Nest:
    """Zeros (empty strings) of a spec, with a length for axes of unknown length."""

    def zeros(leaf: tf.TensorSpec) -> np.ndarray:
        dtype = "S1" if leaf.dtype == tf.string else leaf.dtype.as_numpy_dtype
        return np.zeros([num_rows, *_row_shape(leaf, unknown)], dtype)

    return tf.nest.map_structure(zeros, spec)


def row_bytes(spec: Nest, unknown: int = 1) -> int:
    """Bytes of one row of a spec, with a length for unknown axes; of strings, 16."""

    def leaf_bytes(leaf: tf.TensorSpec) -> int:
        item = 16 if leaf.dtype == tf.string else leaf.dtype.size
        return item * math.prod(_row_shape(leaf, unknown))

    return sum(map(leaf_bytes, tf.nest.flatten(spec)))


def _row_shape(leaf: tf.TensorSpec, unknown: int = 1) -> list[int]:
    return [unknown if axis is None else axis for axis in leaf.shape[1:]]


class SpecMemory:
    """Remembers the loosest spec that was needed for each structure of inputs."""

    def __init__(self) -> None:
        self._specs: dict[Any, list[Any]] = {}
        self._lock = threading.Lock()

    def cover(self, inputs: Nest) -> Nest:
        """A spec, batch axis None, of these inputs or specs and all similar ones."""
        leaves = [_spec_of(leaf, None) for leaf in tf.nest.flatten(inputs)]
        kinds = tuple((leaf.dtype, leaf.shape.rank) for leaf in leaves)
        key = (_structure(inputs), kinds)
        with self._lock:
            pairs = zip(self._specs.get(key, leaves), leaves, strict=True)
            specs = [old.most_specific_common_supertype([new]) for old, new in pairs]
            self._specs[key] = specs
        return tf.nest.pack_sequence_as(inputs, specs)


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a compiled step depends on; the batch axis of `spec` is None."""

    spec: Nest
    batch_size: int
    head: heads.Head = heads.identity
    step: StepKind = "plain"
    may_fall_back: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable form, without what is done where the step cannot be made."""
        return (spec_key(self.spec), self.batch_size, self.head, self.step)

    def specs(self, num_rows: int | None) -> list[tf.TensorSpec]:
        """Flat specs of `num_rows` rows; None for any number."""
        return [_spec_of(leaf, num_rows) for leaf in tf.nest.flatten(self.spec)]


def _spec_of(leaf: Any, num_rows: int | None) -> tf.TensorSpec:
    is_text = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "SU"
    dtype = tf.string if is_text else leaf.dtype
    return tf.TensorSpec([num_rows, *leaf.shape[1:]], dtype)
