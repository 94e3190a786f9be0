"""The model on one micro-batch, and the loop over the micro-batches of a chunk.

The model is called only on static shapes, one micro-batch at a time. An output without
a batch axis is an error when the step is traced.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import Signature
from keras_mgpu_strategy.models import ReplicatedModel, drawing
from keras_mgpu_strategy.types import Nest


def micro_batch_step(
    replicated: ReplicatedModel, signature: Signature, replica: int
) -> Any:
    """A concrete function of the flat inputs of one micro-batch."""

    def forward(*flat: tf.Tensor) -> Nest:
        inputs = replicated.in_form(signature.spec, flat)
        with drawing(replica):  # the head runs the members of several models
            return signature.head(replicated.call(inputs))

    def trace(num_rows: int) -> Any:
        function = tf.function(
            forward,
            autograph=replicated.autograph,
            jit_compile=signature.step == "xla" or None,
        )
        step = function.get_concrete_function(*signature.specs(num_rows))
        _check_batch_axis(step.structured_outputs, num_rows)
        return step

    step = trace(signature.batch_size)
    if not _declares_batch_axes(replicated):
        # A constant output may have as many rows as the batch by chance.
        trace(signature.batch_size + 1)
    return step


def run_micro_batches(
    step: Any,
    chunk: Sequence[tf.Tensor],
    specs: Sequence[tf.TensorSpec],
    before: Callable[[tf.Tensor], list[Any]],
) -> Nest:
    """Runs a step on `(k * batch_size, ...)` rows, for any k, and joins outputs.

    `before` gives the ops to run before each micro-batch, from its first row's index.
    """
    size: Any = specs[0].shape[0]
    num_micro_batches = tf.shape(chunk[0])[0] // size
    arrays = tuple(
        tf.TensorArray(
            spec.dtype, num_micro_batches, element_shape=spec.shape, infer_shape=False
        )
        for spec in tf.nest.flatten(step.structured_outputs)
    )

    def body(index: tf.Tensor, written: tuple) -> tuple:
        batch = [leaf[index * size : (index + 1) * size] for leaf in chunk]
        for rows, spec in zip(batch, specs, strict=True):
            rows.set_shape(spec.shape)
        with tf.control_dependencies(before(index * size)):
            outputs = tf.nest.flatten(step(*batch))
        pairs = zip(written, outputs, strict=True)
        return index + 1, tuple(array.write(index, out) for array, out in pairs)

    _, arrays = tf.while_loop(
        lambda index, _: index < num_micro_batches,
        body,
        (tf.constant(0), arrays),
        parallel_iterations=1,
    )
    joined = [_joined(array.stack()) for array in arrays]
    return tf.nest.pack_sequence_as(step.structured_outputs, joined)


def _joined(stacked: tf.Tensor) -> tf.Tensor:
    """Rows of all micro-batches; `TensorArray.concat` would wait for the device."""
    shape = tf.shape(stacked)
    rows = tf.reshape(stacked, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    rows.set_shape([None, *stacked.shape[2:]])
    return rows


def _declares_batch_axes(replicated: ReplicatedModel) -> bool:
    """Whether outputs declare a batch axis, or no other batch size can be tried."""
    inputs = filter(None, tf.nest.flatten(replicated.input_spec))
    if any(leaf.shape.rank and leaf.shape[0] is not None for leaf in inputs):
        return True
    if replicated.output_shapes is None:
        return False
    outputs = tf.nest.flatten(replicated.output_shapes)
    return all(shape.rank and shape[0] is None for shape in outputs)


def _check_batch_axis(outputs: Nest, num_rows: int) -> None:
    leaves = _flatten_with_names(outputs)
    if not leaves:
        raise ValueError(
            f"The model returns {outputs!r}, expected at least one tensor with a row "
            "for each input row. Let its `call` return what is to be predicted."
        )
    for path, leaf in leaves:
        if not isinstance(leaf, tf.TensorSpec | tf.Tensor):
            raise ValueError(
                f"The model's output{path} is a {type(leaf).__name__}, but only dense "
                "tensors can be joined into arrays. Convert it in the model's last "
                "layer, for example with `.to_tensor()` or `tf.sparse.to_dense`."
            )
        if leaf.shape.rank == 0 or leaf.shape[:1].as_list() not in ([num_rows], [None]):
            raise ValueError(
                f"The model's output{path} has no batch axis: {num_rows} input rows "
                f"gave shape {tuple(leaf.shape)}, expected ({num_rows}, ...). Each "
                "output needs one row per input row, or it cannot be put together "
                "from several replicas. Leave this output out of the model, or "
                "repeat it for each row."
            )


def _flatten_with_names(outputs: Nest) -> list[tuple[str, Any]]:
    if isinstance(outputs, dict):
        items = list(outputs.items())
    elif isinstance(outputs, list | tuple):
        items = list(enumerate(outputs))
    else:
        return [("", outputs)]
    return [
        (f"[{key!r}]{rest}", leaf)
        for key, value in items
        for rest, leaf in _flatten_with_names(value)
    ]
