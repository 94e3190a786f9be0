"""Models and rows for runs on simulated GPUs."""

import keras
import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu

ENGINES = ("threads", "mirrored")


def chain(num_columns, *layers):
    """A model of one input and some layers."""
    inputs = outputs = keras.Input((num_columns,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def dense(num_columns=8):
    """A small classifier."""
    layers = keras.layers
    return chain(
        num_columns, layers.Dense(16, "relu"), layers.Dense(4, activation="softmax")
    )


def rows_of(num_rows, num_columns=8):
    """The same numbers each time."""
    return np.random.default_rng(1).random((num_rows, num_columns), np.float32)


def on_gpus(model, devices="gpu", per_device=1, **options):
    """A Predictor on simulated GPUs."""
    with mgpu.scope(devices, replicas_per_device=per_device):
        return mgpu.Predictor(model, **options)


def split(mebibytes, parts=1):
    """Gives each GPU, or each of its parts, this much memory."""
    limit = tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.set_logical_device_configuration(gpu, [limit] * parts)


def are_same(found, expected):
    """Whether nests of results are equal, floats up to rounding."""
    tf.nest.assert_same_structure(found, expected)
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
    return all(_is_same(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _is_same(found, expected):
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind == "f":
        return np.allclose(found, expected, 1e-5, 1e-6)
    return bool(np.all(found == expected))


def on_cpu(model, inputs):
    """What a model gives on the CPU."""
    with tf.device("CPU:0"):
        return tf.nest.map_structure(lambda leaf: leaf.numpy(), model(inputs))


def made_on_cpu(make):
    with tf.device("CPU:0"):
        return make()
