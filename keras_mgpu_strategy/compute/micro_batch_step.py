"""The model on one micro-batch, traced in the context of one replica.

Guarantee: an output without a batch axis is an error when the step is traced.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.micro_batches import check_batch_axis
from keras_mgpu_strategy.compute.signatures import Signature
from keras_mgpu_strategy.element_forms import SparseRows
from keras_mgpu_strategy.models import ReplicatedModel, drawing
from keras_mgpu_strategy.types import Nest


def replica_here() -> int:
    """Index of the replica that code is being traced for."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def micro_batch_step(replicated: ReplicatedModel, signature: Signature) -> Any:
    """Returns a concrete function of the flat inputs of one micro-batch.

    Raises:
        ValueError: If an output of the model has no batch axis.
    """
    replica = replica_here()

    def forward(*flat: tf.Tensor) -> Nest:
        inputs = _as_declared(replicated, signature.spec, flat)
        with drawing(replica):
            outputs = replicated.call(inputs)
        return tf.nest.map_structure(signature.head, outputs)

    def trace(num_rows: int) -> Any:
        function = tf.function(
            forward,
            autograph=replicated.autograph,
            jit_compile=signature.jit_compile or None,
        )
        return function.get_concrete_function(*signature.micro_batch_specs(num_rows))

    batch_size = signature.batch_size
    step = trace(batch_size)
    check_batch_axis(step.structured_outputs, batch_size)
    if not _declares_batch_axes(replicated):
        # A constant output may have as many rows as the batch by chance.
        check_batch_axis(trace(batch_size + 1).structured_outputs, batch_size + 1)
    return step


def _as_declared(
    replicated: ReplicatedModel, spec: Nest, flat: Sequence[tf.Tensor]
) -> Nest:
    """The user's structure; the model's own if it has one input.

    Keras warns about a dict that holds the only input, or mistakes it for another.
    """
    declared = replicated.input_spec
    is_x = declared is not None and replicated.feeding.whole is None
    has_one = is_x and len(tf.nest.flatten(declared)) == 1
    if not has_one:
        return tf.nest.pack_sequence_as(spec, flat)
    rows = flat[0] if len(flat) == 1 else SparseRows(*flat)
    return tf.nest.pack_sequence_as(declared, [rows])


def _declares_batch_axes(replicated: ReplicatedModel) -> bool:
    """Whether the outputs declare a batch axis, or no other batch size can be tried."""
    inputs = filter(None, tf.nest.flatten(replicated.input_spec))
    if any(leaf.shape.rank and leaf.shape[0] is not None for leaf in inputs):
        return True
    if replicated.output_shapes is None:
        return False
    outputs = tf.nest.flatten(replicated.output_shapes)
    return all(shape.rank and shape[0] is None for shape in outputs)
