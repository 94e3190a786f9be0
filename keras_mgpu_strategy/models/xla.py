"""Whether XLA compiles a model if the user leaves the choice to this package.

It is tried once, on a small function: plugin GPUs, such as Apple's, have no XLA
compiler, and CUDA without `libdevice` fails at the first exponential.
"""

import functools
from typing import Literal

import tensorflow as tf
from tensorflow.python.framework.config import (
    is_op_determinism_enabled,  # pyright: ignore[reportMissingImports]
)

from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel


def step_choices(
    replicated: ReplicatedModel, devices: tuple[str, ...]
) -> tuple[Literal["plain", "frozen", "xla"], ...]:
    """How a model may be compiled here; a run begins with the first."""
    # Not all ops that XLA makes are deterministic, nor is a choice by time. There is
    # no public function for this; this one, which Keras uses, was tried with
    # TensorFlow 2.18 and 2.21.
    if is_op_determinism_enabled():
        return ("plain",)
    on_gpus = ["GPU" in device for device in devices]
    if not all(map(_may_use_xla, replicated.each)) or any(on_gpus) != all(on_gpus):
        return ("plain", "frozen")
    if not any(on_gpus):
        return ("plain", "frozen", "xla")
    return ("xla", "plain", "frozen") if works_on(devices[0]) else ("plain", "frozen")


def _may_use_xla(replicated: ReplicatedModel) -> bool:
    model = replicated.model
    layers = layers_of(model) if hasattr(model, "layers") else []
    supports_xla = all(getattr(layer, "supports_jit", True) for layer in layers)
    return supports_xla and replicated.compiled_for_xla() is not False


@functools.cache
def works_on(device: str) -> bool:
    """Whether XLA compiles for a GPU, a logical device, and the result runs there."""
    # XLA supports the GPUs that report their compute capability.
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    if not any("compute_capability" in details(gpu) for gpu in gpus):
        return False
    try:
        with tf.device(device):
            tf.function(tf.exp, jit_compile=True)(tf.zeros([2]))
    except (tf.errors.OpError, RuntimeError):
        return False
    return True
