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
    if not len(rows) or (own == length).all():
        return _of_one_length(ragged, rows, length)
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


def _of_one_length(ragged: Ragged, rows: np.ndarray, length: int) -> np.ndarray:
    """As a view if the rows lie one after another."""
    count = len(rows)
    first, last = (int(rows[0]), int(rows[-1])) if count else (0, -1)
    if last - first == count - 1 and (np.diff(rows) == 1).all():
        values = ragged.values[ragged.offsets[first] : ragged.offsets[last + 1]]
    else:
        values = ragged.taken(rows).values
    return values.reshape(count, length, *values.shape[1:])


def _stretches(values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """`length` values from each start on; those beyond an end are any values."""
    shape = (len(starts), length, *values.shape[1:])
    last = len(values) - length
    if not len(values):
        return np.zeros(shape, values.dtype)
    if last < 0:
        places = starts[:, None] + np.arange(length)
        return values[np.clip(places, 0, len(values) - 1)]
    result = np.empty(shape, values.dtype)
    # Each row is copied in one go: faster than an index for each of its tokens.
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    windows = np.moveaxis(windows, -1, 1)
    is_inside = (starts >= 0) & (starts <= last)
    if is_inside.all():
        return windows[starts]
    result[is_inside] = windows[starts[is_inside]]
    outside = starts[~is_inside, None] + np.arange(length)
    result[~is_inside] = values[np.clip(outside, 0, len(values) - 1)]
    return result
