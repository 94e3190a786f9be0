"""Metrics of the results of `predict_top_k`, from the labels and the classes found."""

from collections.abc import Callable
from typing import Any


def first_is_right(y_true: Any, y_pred: Any) -> Any:
    """1 for each row whose best class is its label."""
    return _hits(y_true, y_pred)[..., 0]


def any_is_right(y_true: Any, y_pred: Any) -> Any:
    """1 for each row whose label is among its best classes."""
    import keras

    return keras.ops.max(_hits(y_true, y_pred), axis=-1)


def _hits(y_true: Any, y_pred: Any) -> Any:
    from keras import ops

    if len(y_true.shape) < len(y_pred.shape):
        y_true = ops.expand_dims(y_true, -1)
    if y_true.shape[-1] != 1:  # it might still be compared with k classes
        raise ValueError(
            f"The labels have {y_true.shape[-1]} values a row, expected the index of "
            "the class. Pass labels.argmax(-1) of one-hot labels."
        )
    hits = ops.equal(ops.cast(y_true, "int64"), ops.cast(y_pred, "int64"))
    return ops.cast(hits, "float32")


METRICS: dict[str, Callable[[Any, Any], Any]] = {
    "accuracy": first_is_right,
    "top_k": any_is_right,
}
