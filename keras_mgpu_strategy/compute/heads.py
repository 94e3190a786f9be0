"""What is done to a model's outputs on the device, before they cross to the host.

A head takes one output tensor and returns one; it is traced after the model and
compiled with it. Heads are module-level functions, so that a compiled step can be
cached by the head's identity.
"""

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

Head: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


def _is_one_column(outputs: tf.Tensor) -> bool:
    return outputs.shape.rank == 1 or outputs.shape[-1] == 1


def identity(outputs: tf.Tensor) -> tf.Tensor:
    """Leaves the model's outputs as they are."""
    return outputs


def probabilities_from_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis; sigmoid if it has one column."""
    if _is_one_column(outputs):
        return tf.nn.sigmoid(outputs)
    return tf.nn.softmax(outputs, axis=-1)


def class_ids(outputs: tf.Tensor) -> tf.Tensor:
    """Class of each row: argmax (int64), or 1 above 0.5 for one column (int32).

    Same rule and dtypes as `Sequential.predict_classes` of Keras 2.
    """
    if _is_one_column(outputs):
        return tf.cast(outputs > 0.5, tf.int32)
    return tf.argmax(outputs, axis=-1)


def class_ids_from_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Class of each row if the model returns logits: one column is 1 above 0."""
    if _is_one_column(outputs):
        return tf.cast(outputs > 0, tf.int32)
    return tf.argmax(outputs, axis=-1)
