"""Copies between the host and a device, as parts of graphs.

Within a graph, TensorFlow starts a copy and waits for that copy alone, without the GIL.
Outside of one, a copy from a GPU waits until all work of that GPU is done, and
`tf.convert_to_tensor` holds the GIL while it waits (tested with TensorFlow 2.21).
Tensors on a device that shares the host's memory stay where they are.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

HOST = "CPU:0"
"""The device whose memory is the host's."""


def has_own_memory(device: str) -> bool:
    """Whether a device, given by its name, cannot use the host's memory."""
    return "CPU" not in device


def host_of(device: str) -> str:
    """Where tensors are created before they are copied to a device."""
    return HOST if has_own_memory(device) else device


def to_device(device: str, leaves: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Copies flat tensors to a device, all at the same time."""
    with tf.device(device):
        return [tf.identity(leaf) for leaf in leaves]


def to_host(device: str, outputs: Nest) -> Nest:
    """Copies what was computed on a device to the host."""
    if not has_own_memory(device):
        return outputs
    with tf.device(HOST):
        return tf.nest.map_structure(tf.identity, outputs)
