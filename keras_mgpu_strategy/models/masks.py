"""The masks that Keras keeps on outputs, which losses and metrics look for.

There is no public way to read or set them. Tried with Keras 3.5 and 3.15, tf_keras 2.18
and 2.21.
"""

from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT
from keras_mgpu_strategy.types import Nest


def masks_of(outputs: Nest) -> list[Any]:
    """Returns a bool tensor, or an empty tuple if it has no mask, for each output."""
    masks = [
        getattr(output, "_keras_mask", None) for output in tf.nest.flatten(outputs)
    ]
    return [ABSENT if mask is None else mask for mask in masks]


def give_masks(outputs: Nest, masks: list[Any]) -> None:
    """Sets masks, as `masks_of` returns them."""
    for output, mask in zip(tf.nest.flatten(outputs), masks, strict=True):
        if not isinstance(mask, tuple):
            output._keras_mask = mask
