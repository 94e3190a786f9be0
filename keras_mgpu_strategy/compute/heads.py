"""What each predict method does to a model's outputs, before they leave the device.

A head is compiled with the model; it is a module-level function, since compiled steps
are kept by its identity.
"""

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

Head: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


def identity(outputs: tf.Tensor) -> tf.Tensor:
    """Leaves the model's outputs as they are."""
    return outputs


def probabilities_from_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis; sigmoid if it has one column."""
    if _is_one_column(outputs):
        return tf.nn.sigmoid(outputs)
    return tf.nn.softmax(outputs, axis=-1)


def class_ids(outputs: tf.Tensor) -> tf.Tensor:
    """Argmax (int64), or 1 above 0.5 for one column (int32), as in Keras 2."""
    return _class_ids(outputs, 0.5)


def class_ids_from_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Class of each row if the model returns logits: one column is 1 above 0."""
    return _class_ids(outputs, 0)


def _class_ids(outputs: tf.Tensor, threshold: float) -> tf.Tensor:
    if _is_one_column(outputs):
        return tf.cast(outputs > threshold, tf.int32)
    return tf.argmax(outputs, axis=-1)


def _is_one_column(outputs: tf.Tensor) -> bool:
    return outputs.shape.rank == 1 or outputs.shape[-1] == 1


# Name -> head for plain outputs, head for logits.
_HEADS: dict[str, tuple[Head, Head | None]] = {
    "predict": (identity, None),
    "predict_proba": (identity, probabilities_from_logits),
    "predict_classes": (class_ids, class_ids_from_logits),
}
METHODS = tuple(_HEADS)


def head_of(method: str, *, from_logits: bool = False) -> Head:
    """Returns what a method does to each output."""
    if method not in _HEADS:
        raise ValueError(f"method={method!r}. Expected one of {list(METHODS)}.")
    plain, of_logits = _HEADS[method]
    if not from_logits:
        return plain
    if of_logits is None:
        raise ValueError(
            f"Received from_logits=True with method={method!r}, which returns what the "
            "model returns. Use predict_proba or predict_classes."
        )
    return of_logits
