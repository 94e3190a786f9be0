"""Whether what a model gives for a row alone and padded differs beyond rounding."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.agreement import is_coarse
from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel

_EXACT, _TENSOR_FLOAT, _HALF = 1e-5, 5e-3, 5e-2
"""Differences that may be rounding, relative to the largest value of an output."""


def difference_of(
    replicated: ReplicatedModel, alone: np.ndarray, padded: np.ndarray, side: str
) -> str | None:
    """Says by how much an output of a row differs; None if only by rounding."""
    own = _own_part(padded, alone.shape, side)
    if alone.dtype.kind not in "biufcV":
        return None if np.array_equal(alone, own) else ""
    bound = _bound(replicated, alone.dtype)
    one, other = _wide(alone), _wide(own)
    scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    if np.allclose(one, other, 0, bound * scale, equal_nan=True):
        return None
    return f" by up to {np.nanmax(np.abs(one - other), initial=0.0):.2g}"


def _own_part(array: np.ndarray, shape: Sequence[int], side: str) -> np.ndarray:
    """The tokens of a row alone, without those of its padding."""
    for axis, (size, wanted) in enumerate(zip(array.shape, shape, strict=True)):
        first = 0 if side == "right" else max(size - wanted, 0)
        array = np.take(array, range(first, first + min(size, wanted)), axis)
    return array


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def _bound(replicated: ReplicatedModel, dtype: np.dtype) -> float:
    """What rounding may change: GPUs multiply float32 with fewer digits by default."""
    members = [each for each in replicated.each if each.folder is None]
    layers = [layer for each in members for layer in layers_of(each.model)]
    if dtype.itemsize < 4 or any(map(is_coarse, layers)):
        return _HALF
    kind = tf.DeviceSpec.from_string(replicated.strategy.extended.worker_devices[0])
    is_reduced = tf.config.experimental.tensor_float_32_execution_enabled()
    return _TENSOR_FLOAT if is_reduced and kind.device_type != "CPU" else _EXACT
