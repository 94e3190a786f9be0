"""One replica's loop over the micro-batches of a chunk, as part of a graph.

Guarantee: the model is called only on static shapes, one micro-batch at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.types import Nest


def check_batch_axis(outputs: Nest, num_rows: int) -> None:
    """Checks what a model returns for `num_rows` rows.

    Args:
        outputs: Nest of symbolic tensors or specs.
        num_rows: Rows of the batch that the model was traced on.

    Raises:
        ValueError: If there is no output, or one does not have that many rows or is
            not dense.
    """
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
        items = [(f"[{key!r}]", value) for key, value in outputs.items()]
    elif isinstance(outputs, list | tuple):
        items = [(f"[{index}]", value) for index, value in enumerate(outputs)]
    else:
        return [("", outputs)]
    return [
        (name + rest, leaf)
        for name, value in items
        for rest, leaf in _flatten_with_names(value)
    ]


def run_micro_batches(
    step: Any,
    chunk: Sequence[tf.Tensor],
    specs: Sequence[tf.TensorSpec],
    before: Callable[[tf.Tensor], list[Any]] = lambda row: [],
) -> Nest:
    """Runs a step over the micro-batches of a chunk and joins the outputs.

    Args:
        step: A concrete function of one micro-batch.
        chunk: Flat tensors of shape `(k * batch_size, ...)`, for any k.
        specs: Flat specs of a micro-batch.
        before: Gives the ops to run before each micro-batch, from the index of its
            first row in the chunk.

    Returns:
        Nest of tensors of shape `(k * batch_size, ...)`.
    """
    size: Any = specs[0].shape[0]
    num_micro_batches = tf.shape(chunk[0])[0] // size
    outputs = tf.nest.flatten(step.structured_outputs)
    arrays = tuple(_array_like(spec, num_micro_batches) for spec in outputs)
    inputs = list(zip(chunk, specs, strict=True))

    def body(index: tf.Tensor, written: tuple) -> tuple:
        rows = slice(index * size, (index + 1) * size)
        batch = [_shaped(leaf[rows], spec) for leaf, spec in inputs]
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
    """Rows of all micro-batches, from one micro-batch per index.

    `TensorArray.concat` would wait for the device and delay the copy of results.
    """
    shape = tf.shape(stacked)
    rows = tf.reshape(stacked, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    rows.set_shape([None, *stacked.shape[2:]])
    return rows


def _shaped(rows: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    rows.set_shape(spec.shape)
    return rows


def _array_like(spec: tf.TensorSpec, size: tf.Tensor) -> tf.TensorArray:
    return tf.TensorArray(
        spec.dtype, size=size, element_shape=spec.shape, infer_shape=False
    )
