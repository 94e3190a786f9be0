"""Rows of unequal length as arrays of one length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest, Ragged


def padded_nest(
    inputs: Nest, rows: np.ndarray, length: int, values: Sequence[Any], side: str
) -> Nest:
    """Some rows, by index, of all inputs; `values` are what each is padded with."""
    flat = [
        padded(leaf, rows, length, value, side)
        if isinstance(leaf, Ragged)
        else leaf[rows]
        for leaf, value in zip(tf.nest.flatten(inputs), values, strict=True)
    ]
    return tf.nest.pack_sequence_as(inputs, flat)


def padded(
    ragged: Ragged, rows: np.ndarray, length: int, value: Any, side: str
) -> np.ndarray:
    """Some rows, by index, as an array of shape `(len(rows), length, ...)`.

    What is longer is cut at the side where padding would come.
    """
    own = ragged.lengths[rows]
    if len(rows) and (own == length).all() and (np.diff(rows) == 1).all():
        values = ragged[rows[0] : rows[-1] + 1].packed().values  # a view
        return values.reshape(len(rows), length, *values.shape[1:])
    kept = np.minimum(own, length)
    starts = ragged.offsets[rows]
    places = np.arange(length)
    if side == "right":
        is_padding = places >= kept[:, None]
    else:  # row r ends where its tokens end
        starts = starts + own - length
        is_padding = places < length - kept[:, None]
    result = _stretches(ragged.values, starts, length)
    result[is_padding] = value
    return result


def _stretches(values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """`length` values from each start on; those beyond an end are any values."""
    last = len(values) - length
    if not len(values):
        return np.zeros((len(starts), length, *values.shape[1:]), values.dtype)
    if last < 0:
        return values[_clipped(starts, length, len(values))]
    # Each row is copied in one go: faster than an index for each of its tokens.
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    result = np.moveaxis(windows, -1, 1)[np.clip(starts, 0, last)]
    is_outside = (starts < 0) | (starts > last)
    result[is_outside] = values[_clipped(starts[is_outside], length, len(values))]
    return result


def _clipped(starts: np.ndarray, length: int, stop: int) -> np.ndarray:
    return np.clip(starts[:, None] + np.arange(length), 0, stop - 1)
