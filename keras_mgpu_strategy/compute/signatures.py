"""What compiled steps depend on, and how few are kept when shapes vary.

Guarantee: for each structure of inputs, an axis that was seen with two lengths is
None from then on, so a step is traced at most once per axis beyond the first.
"""

import dataclasses
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.types import Nest


def spec_key(spec: Nest) -> Any:
    """Hashable form of a nest of `tf.TensorSpec`."""
    structure = repr(tf.nest.map_structure(lambda _: 0, spec))
    return structure, tuple(tf.nest.flatten(spec))


class SpecMemory:
    """Remembers the loosest spec that was needed for each structure of inputs."""

    def __init__(self) -> None:
        self._specs: dict[Any, tuple[tf.TensorSpec, ...]] = {}
        self._lock = threading.Lock()

    def cover(self, inputs: Nest) -> Nest:
        """A spec that covers these inputs and all similar ones seen before.

        Args:
            inputs: Nest of NumPy arrays, tensors or `tf.TensorSpec`.

        Returns:
            Nest of `tf.TensorSpec` with None for the batch axis.
        """
        leaves = [_spec_of(leaf) for leaf in tf.nest.flatten(inputs)]
        kinds = tuple((leaf.dtype, leaf.shape.rank) for leaf in leaves)
        key = (repr(tf.nest.map_structure(lambda _: 0, inputs)), kinds)
        with self._lock:
            known = self._specs.get(key, tuple(leaves))
            pairs = zip(known, leaves, strict=True)
            self._specs[key] = tuple(_relaxed(old, new) for old, new in pairs)
            return tf.nest.pack_sequence_as(inputs, list(self._specs[key]))


def _spec_of(leaf: Any) -> tf.TensorSpec:
    if isinstance(leaf, tf.TensorSpec):
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)
    is_text = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "SU"
    dtype = tf.string if is_text else leaf.dtype
    return tf.TensorSpec([None, *leaf.shape[1:]], dtype)


def _relaxed(old: tf.TensorSpec, new: tf.TensorSpec) -> tf.TensorSpec:
    pairs = zip(old.shape, new.shape, strict=True)
    shape = [mine if mine == theirs else None for mine, theirs in pairs]
    return tf.TensorSpec(shape, old.dtype)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Everything that a compiled step depends on.

    Args:
        spec: Nest of `tf.TensorSpec` of a chunk; the batch axis is None.
        batch_size: Per-replica batch: rows of one call of the model.
        head: What is done to the outputs on the device.
        jit_compile: Whether XLA compiles the call of the model.
        may_fall_back: Whether a model that XLA cannot compile runs without it.
    """

    spec: Nest
    batch_size: int
    head: heads.Head = heads.identity
    jit_compile: bool = False
    may_fall_back: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable form."""
        others = (self.batch_size, self.head, self.jit_compile, self.may_fall_back)
        return (spec_key(self.spec), *others)

    def chunk_specs(self) -> list[tf.TensorSpec]:
        """Flat specs of a chunk: any number of rows."""
        return [_with_rows(leaf, None) for leaf in tf.nest.flatten(self.spec)]

    def micro_batch_specs(self, num_rows: int) -> list[tf.TensorSpec]:
        """Flat specs of one call of the model on `num_rows` rows."""
        return [_with_rows(leaf, num_rows) for leaf in tf.nest.flatten(self.spec)]


def _with_rows(leaf: tf.TensorSpec, num_rows: int | None) -> tf.TensorSpec:
    return tf.TensorSpec([num_rows, *leaf.shape[1:]], leaf.dtype)
