"""Checks that results are probabilities.

Keras 2's `predict_proba` warned if a value was below 0 or above 1; so does this,
and it says where.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.system.messages import warn
from keras_mgpu_strategy.types import HostBatch

_REMEDY = (
    "The model seems to return logits: pass from_logits=True for a softmax (a sigmoid "
    "for one column), or call predict() for values of any range."
)


def checked(batches: Iterable[HostBatch], *, strict: bool) -> Iterator[HostBatch]:
    """Passes batches on; reports values outside [0, 1], including NaN.

    Warns once, at the end, with the worst value and its row.

    Args:
        batches: The results.
        strict: Whether to raise at the first batch with such a value instead.

    Raises:
        ValueError: With `strict`, before the batch is passed on.
    """
    worst: tuple[float, float, int] | None = None
    for batch in batches:
        found = _worst(batch)
        if found is not None and strict:
            raise ValueError(_complaint(found))
        if found is not None and (worst is None or found[0] > worst[0]):
            worst = found
        yield batch
    if worst is not None:
        warn(_complaint(worst))


def _complaint(found: tuple[float, float, int]) -> str:
    _, value, row = found
    return (
        f"Invalid probability values: {value:g} in row {row} is the worst value "
        f"outside [0, 1]. {_REMEDY}"
    )


def _worst(batch: HostBatch) -> tuple[float, float, int] | None:
    """Distance from [0, 1], value and row of the worst value; None if all are in."""
    found = [_worst_of(array) for array in tf.nest.flatten(batch.outputs)]
    outside = [(far, value, batch.start + row) for far, value, row in found if far > 0]
    return max(outside, default=None)


def _worst_of(array: np.ndarray) -> tuple[float, float, int]:
    if array.size == 0 or array.dtype.kind in "biuSUO":
        return _worst_of_others(array)
    if array.dtype.kind == "V":
        # bfloat16: NumPy warns when it compares NaN, and cannot replace it.
        array = array.astype(np.float32)
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1:
        return 0.0, 0.0, 0
    distance = np.nan_to_num(np.maximum(-array, array - 1), nan=np.inf, posinf=np.inf)
    index = np.unravel_index(int(np.argmax(distance)), array.shape)
    return float(distance[index]), float(array[index]), int(index[0])


def _worst_of_others(array: np.ndarray) -> tuple[float, float, int]:
    if array.size and array.dtype.kind in "SUO":
        raise TypeError(
            f"predict_proba got outputs of dtype {array.dtype}, expected numbers. "
            "Call predict() for a model that does not return probabilities."
        )
    outside = array.astype(np.float64) if array.size else np.zeros((1,))
    distance = np.maximum(-outside, outside - 1)
    index = np.unravel_index(int(np.argmax(distance)), outside.shape)
    return max(float(distance[index]), 0.0), float(outside[index]), int(index[0])
